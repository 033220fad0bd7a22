#!/bin/bash
set -e
docker build -t my-claw-build "$CLONE"
docker tag my-claw-build openclaw:local
