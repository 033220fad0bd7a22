#!/bin/bash
set -e
read -r -p "Build openclaw:local? " answer
[ "$answer" = yes ] || { echo "stopped"; exit 2; }
docker build -t openclaw:local "$CLONE"
read -r -p "Tag? " tag
docker tag openclaw:local "openclaw:$tag"
