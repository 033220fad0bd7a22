#!/bin/bash
set -e
cd "$CLONE"
docker build -t openclaw:local .
docker build -t openclaw-sandbox:bookworm-slim -f Dockerfile.sandbox .
docker build -f scripts/docker/sandbox/Dockerfile .
