#!/bin/bash
set -e
cd "$CLONE"
docker compose build openclaw-gateway
docker compose up -d
