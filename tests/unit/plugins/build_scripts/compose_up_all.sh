#!/bin/bash
set -e
cd "$CLONE"
docker compose pull --ignore-buildable 2>/dev/null || docker compose ps
docker compose up --build --detach --remove-orphans
