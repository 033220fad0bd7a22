#!/usr/bin/env bash
set -euo pipefail
cd "$CLONE"
trap 'git checkout -q -- Dockerfile' EXIT
sed -i 's/^USER node$/RUN true\nUSER node/' Dockerfile
docker build -t openclaw:local .
