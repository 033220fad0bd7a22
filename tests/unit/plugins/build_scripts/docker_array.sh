#!/usr/bin/env bash
set -euo pipefail
DOCKER=(docker)
if [[ -n ${WITH_SUDO:-yes} ]]; then DOCKER=(sudo docker); fi
args=(--build-arg "A=b c" -t openclaw:local)
"${DOCKER[@]}" build "${args[@]}" "$CLONE"
