#!/usr/bin/env bash
set -euo pipefail
compose_cmd=(sudo docker compose --ansi never)
cd "$CLONE"
"${compose_cmd[@]}" build
