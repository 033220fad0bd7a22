#!/bin/bash
set -e
export COMPOSE_FILE="$CLONE/docker-compose.yml"
docker compose --profile gateway build --build-arg A=1 openclaw-gateway
