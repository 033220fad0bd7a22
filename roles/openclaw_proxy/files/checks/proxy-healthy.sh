#!/bin/sh
# Check that the proxy's container is healthy.
state=$(docker inspect --format "$HEALTH" openclaw-proxy 2>&1) || true
echo "openclaw-proxy is $state"; test "$state" = healthy
