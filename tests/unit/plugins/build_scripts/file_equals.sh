#!/bin/bash
set -e
cd "$HOME"
docker build --file="$CLONE/docker/Dockerfile.gateway" -t openclaw:local "$CLONE"
