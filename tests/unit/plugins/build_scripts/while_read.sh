#!/bin/bash
set -e
cd "$CLONE"
while read -r name target; do
  docker build --target "$target" -t "openclaw:$name" . </dev/null
done <<'LIST'
first runtime
second build
LIST
