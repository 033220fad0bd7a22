#!/usr/bin/env bash
# Make the virtual environment from hash-locked requirements.
#   setup.sh VENV LOCK STAMP
# Does nothing when the lock is the one that the environment was made from. Looks for a Python >= 3.12 on the PATH and
# where version managers hide them; where there is none it asks uv for one.
set -euo pipefail
venv=$1 lock=$2 stamp=$3
wanted=$(sha256sum "$lock" requirements/setup.sh files/addon/pyproject.toml | sha256sum | cut -d' ' -f1)
if [[ -x $venv/bin/python && -f $stamp && $(<"$stamp") == "$wanted" ]] && "$venv/bin/python" -c '' 2>/dev/null; then
  exit 0
fi

# Prints the interpreter itself, not the virtual environment it was found in (which may be the one to be made anew).
base_of() {
  "$1" -c 'import ensurepip, os, sys, venv
if not (3, 12) <= sys.version_info[:2] <= (3, 14): sys.exit(1)
print(os.path.realpath(sys._base_executable))' 2>/dev/null
}

find_python() {
  local candidate
  shopt -s nullglob
  for candidate in ${PYTHON:+"$PYTHON"} python3.13 \
    ~/.pyenv/versions/3.13*/bin/python3 ~/.asdf/installs/python/3.13*/bin/python3 \
    ~/.local/share/mise/installs/python/3.13*/bin/python3 \
    python3.12 python3.14 python3 \
    ~/.pyenv/versions/3.1[24]*/bin/python3 ~/.asdf/installs/python/3.1[24]*/bin/python3 \
    ~/.local/share/mise/installs/python/3.1[24]*/bin/python3 ~/.local/share/uv/python/cpython-3.1[2-4]*/bin/python3 \
    ~/*conda3/envs/*/bin/python3 /opt/python/3.1[2-4]*/bin/python3 /usr/local/bin/python3.1[2-4]; do
    candidate=$(command -v "$candidate" 2>/dev/null) || continue
    if base_of "$candidate"; then return; fi
  done
  if command -v uv >/dev/null && uv python install --quiet 3.13 >&2; then base_of "$(uv python find 3.13)" && return; fi
  return 1
}

if ! python=$(find_python); then
  cat >&2 <<'EOF'
setup: no Python from 3.12 to 3.14 (with venv) was found on the PATH, under pyenv, asdf, mise, conda or uv.
Install one of:  apt-get install python3.13 python3.13-venv  ·  pyenv install 3.13  ·  pip install uv && uv python install 3.13
or name it:      make setup PYTHON=/path/to/python3.13
EOF
  exit 1
fi

echo "setup: $("$python" -V) ($python), $(grep -c '==' "$lock") locked packages …" >&2
rm -rf "$venv"
"$python" -m venv "$venv"
# uv is quicker by far and checks the same hashes; pip alone does as well.
if "$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt 2>/dev/null; then
  "$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --require-hashes -r "$lock"
else
  "$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$lock"
fi
# The addon as it stands in the checkout: `egress` on the environment's PATH.
"$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable files/addon
# Three of four seconds in which the proxy starts would go into compiling, where the environment keeps Python from
# writing bytecode. Of Ansible's own collections only the one that is used.
"$venv/bin/python" -W ignore -m compileall -q -j 0 -x 'ansible_collections/(?!community/docker)' "$venv/lib" >&2 || true
echo "$wanted" >"$stamp"
echo "setup: done" >&2
