#!/usr/bin/env bash
#
# build-openclaw.sh: docker build with our patches
# ============================================================

set -e # stop at errors
set -o pipefail

# === 1. Sources ===
cd "$CLONE"

# === 2. Build ===
docker build -t openclaw:local . # the gateway
