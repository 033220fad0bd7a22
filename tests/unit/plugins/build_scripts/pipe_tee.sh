#!/usr/bin/env bash
set -euo pipefail
cd "$CLONE"
docker build -t openclaw:local . 2>&1 | tee "$HOME/build.log"
