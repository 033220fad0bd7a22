#!/usr/bin/env bash
set -euo pipefail

log() { printf '[%s] %s\n' "$1" "$2" >&2; }

main() {
  local tag=${1:-openclaw:local}
  log info "docker build of $tag starts"
  pushd "$CLONE" >/dev/null
  docker build -t "$tag" .
  popd >/dev/null
  log info finished
}

main "$@"
