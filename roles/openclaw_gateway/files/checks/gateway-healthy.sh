#!/bin/sh
# Check that the gateway's container is healthy, or runs without a health check.
state=$(docker inspect --format "$HEALTH" "$GATEWAY" 2>&1) || true
echo "$GATEWAY is $state"; case "$state" in healthy | running) ;; *) exit 1 ;; esac
