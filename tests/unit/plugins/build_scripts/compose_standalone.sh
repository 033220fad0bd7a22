#!/bin/bash
set -e
cd "$CLONE"
if command -v docker-compose >/dev/null; then
  docker-compose build --no-cache
else
  docker compose build --no-cache
fi
