#!/bin/bash
set -e
cp "$CLONE/Dockerfile" "$HOME/Dockerfile.mine"
docker build -f "$HOME/Dockerfile.mine" -t openclaw:local "$CLONE"
