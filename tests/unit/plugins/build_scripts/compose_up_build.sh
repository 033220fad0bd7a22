#!/bin/bash
cd "$CLONE" || exit 1
docker compose up -d --build openclaw-gateway
