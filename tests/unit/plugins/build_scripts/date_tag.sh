#!/bin/sh
set -e
tag=openclaw:2026
docker build -t "$tag" -t openclaw:local "$CLONE" && docker push -q "$tag"
