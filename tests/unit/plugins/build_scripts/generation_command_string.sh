#!/usr/bin/env bash
set -euo pipefail
cd "${CLONE:-/home/openclaw/openclaw}"
sed -i '/^USER node$/i RUN echo docker.io' Dockerfile
BUILD_CMD="docker build -t openclaw:local ."
status=0
eval "$BUILD_CMD" || status=$?
git checkout -- Dockerfile
exit "$status"
