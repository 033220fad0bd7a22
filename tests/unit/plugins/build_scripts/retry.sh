#!/bin/bash
for attempt in 1 2 3; do
  docker build -t openclaw:local "$CLONE" && break
  [ "$attempt" -lt 3 ] || exit 1
done
