#!/bin/bash
# Builds the gateway's image with Compose.
set -e
cd "$(dirname "$0")"
docker compose build openclaw-gateway
