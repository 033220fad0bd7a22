#!/usr/bin/env bash
set -uo pipefail
docker build -t openclaw:local "$CLONE" 2>&1 | while IFS= read -r line; do echo "docker: $line"; done
