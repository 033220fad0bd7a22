#!/usr/bin/env bash
set -euo pipefail
DOCKER="${DOCKER:-docker}"
cd "${CLONE:-/home/openclaw/openclaw}"
git stash list >/dev/null
sed -i '/^USER node$/i RUN echo docker.io' Dockerfile
if ! "$DOCKER" build -q -t openclaw:local "$PWD"; then
  echo "build failed" >&2
  git stash -q && git stash drop -q
  exit 7
fi
git stash -q && git stash drop -q
