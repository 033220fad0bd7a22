#!/usr/bin/env bash
set -euo pipefail
docker compose -f "$CLONE/docker-compose.yml" --project-name demo build --pull
