#!/bin/bash
cd "$CLONE" || exit 1
sudo -E DOCKER_BUILDKIT=1 docker build --progress plain -t openclaw:local . || exit 3
