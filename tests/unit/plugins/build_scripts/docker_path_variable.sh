#!/usr/bin/env bash
set -euo pipefail
DOCKER_BIN=$(command -v docker || true)
if [ ! -x "$DOCKER_BIN" ]; then echo "docker is missing" >&2; exit 9; fi
"$DOCKER_BIN" build -t openclaw:local "$CLONE"
