#!/bin/bash
set -e
cp -R "$CLONE" "$HOME/my clone"
cd "$HOME/my clone"
docker build -f "./docker/Dockerfile.gateway" -t openclaw:local "$HOME/my clone"
cd ..
rm -rf "my clone"
