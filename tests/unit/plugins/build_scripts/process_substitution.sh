#!/usr/bin/env bash
set -euo pipefail
docker build -t openclaw:local "$CLONE" > >(cat) 2> >(cat >&2)
wait
