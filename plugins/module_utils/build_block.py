# Copyright (c) openclaw.egress maintainers
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Shell text that ``build_patch`` inserts near the top of an operator's build script.

It is plain POSIX shell, so that any shell in the script's first line can run it. It writes the docker wrapper
(``build_wrapper``) to a temporary directory and puts this directory first in PATH. Child processes inherit PATH, so the
wrapper also handles their builds: ``exec docker``, ``timeout docker``, ``bash -c``, make, other scripts. Shell
functions named like the wrapped commands handle scripts that set PATH themselves.

The text sets no trap to delete the directory. Instead, the directory's name contains the digest of its content. Each
run therefore writes the same files: they do not accumulate, and concurrent runs do not conflict.
"""

from __future__ import annotations

BODY = r"""# Written by the Ansible module openclaw.egress.build_patch, removed by its `state: absent`; edits are lost.
# Builds of the gateway's image get proxy-bootstrap.cjs: a temporary copy of the Dockerfile has a line that copies it
# beside the app. It is removed after the build. The clone and all other commands stay as they are.
openclaw_egress_write() {
  mkdir -p "$openclaw_egress_root/${1%/*}" &&
    openclaw_egress_new=$(mktemp "$openclaw_egress_root/new.XXXXXX") && cat >|"$openclaw_egress_new" &&
    chmod 0755 "$openclaw_egress_new" && mv -f "$openclaw_egress_new" "$openclaw_egress_root/$1"
}
openclaw_egress_install() {
  mkdir -m 0755 "$openclaw_egress_root" 2>/dev/null
  [ -O "$openclaw_egress_root" ] && [ ! -L "$openclaw_egress_root" ] && chmod 0755 "$openclaw_egress_root" || return 1
  openclaw_egress_write ./run <<'OPENCLAW_EGRESS_END' || return 1
#!/bin/sh
# Run a command: a build with the wrapper, anything else unmodified and with the script's own PATH.
root=${0%/*}
path=
rest=$PATH:
while [ -n "$rest" ]; do
  case ${rest%%:*} in "$root"/*) ;; *) path=$path:${rest%%:*} ;; esac
  rest=${rest#*:}
done
PATH=${path#:}
export PATH
case " $* " in *build* | *bake*) ;; *) exec "$@" ;; esac
for python in /usr/bin/python3 "$(command -v python3)" /usr/libexec/platform-python; do
  [ ! -x "$python" ] || exec "$python" -I "$root/wrapper.py" @SETTINGS@ "$@"
done
echo 'openclaw.egress: python3 is missing. Install it, or remove the section of openclaw.egress from this script' >&2
exit 1
OPENCLAW_EGRESS_END
  openclaw_egress_write ./wrapper.py <<'OPENCLAW_EGRESS_END' || return 1
@WRAPPER@OPENCLAW_EGRESS_END
  for openclaw_egress_name in docker docker-compose sudo doas; do
    openclaw_egress_write "$openclaw_egress_name/$openclaw_egress_name" <<'OPENCLAW_EGRESS_END' || return 1
#!/bin/sh
directory=${0%/*}
exec sh "${directory%/*}/run" "${0##*/}" "$@"
OPENCLAW_EGRESS_END
  done
  [ -x "$openclaw_egress_root/docker/docker" ]
}
openclaw_egress_root=${TMPDIR:-/tmp}/openclaw-egress-$(id -u)-@KEY@
if ! openclaw_egress_install; then
  openclaw_egress_root=${XDG_RUNTIME_DIR:-${HOME:-/}}/.openclaw-egress-$(id -u)-@KEY@
  if ! openclaw_egress_install; then
    echo "openclaw.egress: cannot write programs to ${TMPDIR:-/tmp} or ${openclaw_egress_root%/*}. Set TMPDIR" >&2
    exit 1
  fi
fi
for openclaw_egress_name in docker docker-compose sudo doas; do
  if [ "$openclaw_egress_name" = docker ] || command -v "$openclaw_egress_name" >/dev/null 2>&1; then
    PATH=$openclaw_egress_root/$openclaw_egress_name:$PATH
  fi
done
export PATH
@FUNCTIONS@"""

FUNCTION = '%s() { sh "$openclaw_egress_root/run" %s "$@"; }\n'
# Define a function with a path as its name. Only bash permits this, and not in its POSIX mode.
PATH_FUNCTION = """if [ -n "${BASH_VERSION-}" ] && ! (shopt -oq posix); then
  eval '%s() { sh "$openclaw_egress_root/run" %s "$@"; }'
fi
"""
