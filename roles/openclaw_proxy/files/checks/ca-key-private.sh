#!/bin/sh
# Check owner and mode of the CA keys. Check that no container, running or stopped, mounts the root CA's key, its directory, or a
# parent directory. The variables come from the environment (roles/openclaw_gateway/tasks/verify.yml). MOUNTS is a format for
# `docker inspect` that prints the source of each mount on its own line.
# shellcheck disable=SC2153,SC2154
key=$(stat -c '%u %a' "$CA_DIR/mitmproxy-ca.pem"); root=$(stat -c '%u %a' "$ROOT_KEY_DIR")
# Try again if `docker inspect` fails, because a container may have been removed between the two commands.
for _ in 1 2 3; do
  containers=$(docker ps --all --quiet 2>&1) || { echo "could not be checked: $containers"; exit 1; }
  # shellcheck disable=SC2086  # Pass each container id as a separate word.
  mounts=$(test -z "$containers" || docker inspect --format "$MOUNTS" $containers 2>&1) && listed=yes && break
  sleep 1
done
test -n "${listed:-}" || { echo "could not be checked: $mounts"; exit 1; }
echo "issuing key (uid mode): $key; root key's directory: $root"
case "$key" in "$PROXY_UID 400" | "$PROXY_UID 600") ;; *) exit 1 ;; esac
test "$root" = '0 700' || exit 1
root_dir=$(readlink -f "$ROOT_KEY_DIR")
while read -r source; do
  test -n "$source" || continue
  # Resolve symbolic links. Use -m, because the source of a mount may no longer exist.
  source=$(readlink -m "$source")
  case "$root_dir/" in "${source%/}"/*) echo "the root CA's key is mounted in a container, from $source"; exit 1 ;; esac
  case "$source" in "$root_dir"/*) echo "the root CA's key is mounted in a container, from $source"; exit 1 ;; esac
done <<EOF
$mounts
EOF
