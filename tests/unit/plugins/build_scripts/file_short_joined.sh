#!/bin/bash
set -e
cd "$CLONE"
docker build -qfdocker/Dockerfile.gateway -topenclaw:local .
