#!/usr/bin/env bash
set -euo pipefail
COMPOSE="docker compose -f $CLONE/docker-compose.yml"
$COMPOSE build openclaw-gateway
$COMPOSE up -d
