#!/usr/bin/env bash
set -euo pipefail
printf 'A=1\nB=2 3\n' > "$HOME/build.env"
mapfile -t pairs < "$HOME/build.env"
args=()
for pair in "${pairs[@]}"; do args+=(--build-arg "$pair"); done
docker build "${args[@]}" -t openclaw:local "$CLONE"
