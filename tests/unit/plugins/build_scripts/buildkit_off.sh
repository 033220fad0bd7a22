#!/bin/bash
set -e
export DOCKER_BUILDKIT=0
docker build -t openclaw:local "$CLONE"
