#!/bin/bash
set -e
DOCKER_BUILDKIT=1 docker build --progress=plain -t openclaw:local "$CLONE"
