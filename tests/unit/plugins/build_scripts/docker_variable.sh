#!/usr/bin/env bash
set -eu
DOCKER=${DOCKER:-docker}
"$DOCKER" build -t openclaw:local "$CLONE"
