#!/usr/bin/env bash
# Update: pull, build, restart, prune.
set -euo pipefail
cd "$CLONE"
git fetch -q --all 2>/dev/null || true
docker build -t openclaw:local .
docker compose -f docker-compose.yml up -d --force-recreate openclaw-gateway
docker image prune -f
