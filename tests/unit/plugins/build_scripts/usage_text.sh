#!/usr/bin/env bash
set -euo pipefail
usage() {
  cat <<EOF
Usage: $0 [--help]
  Runs docker build - <<DOCKERFILE for you; don't call it as root.
EOF
}
[ "${1:-}" != --help ] || { usage; exit 0; }
docker build -t openclaw:local "$CLONE"
