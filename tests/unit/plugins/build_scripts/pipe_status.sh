#!/usr/bin/env bash
cd "$CLONE"
docker build -t openclaw:local . 2>&1 | sed 's/^/  /'
exit "${PIPESTATUS[0]}"
