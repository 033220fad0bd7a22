#!/bin/bash
set -e
cd "$CLONE"
docker build -t openclaw:local .
docker compose up -d --no-build openclaw-gateway
