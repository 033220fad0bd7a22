#!/bin/bash
set -e
cd "$CLONE"
docker buildx build --load --platform linux/amd64 -t openclaw:local .
