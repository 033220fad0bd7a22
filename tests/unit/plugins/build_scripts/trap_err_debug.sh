#!/bin/bash
set -Eeuo pipefail
trap 'echo "failed in line" >&2' ERR
trap 'n=$((${n:-0} + 1))' DEBUG
docker build -t openclaw:local "$CLONE"
