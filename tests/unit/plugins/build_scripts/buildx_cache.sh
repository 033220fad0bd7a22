#!/bin/bash
set -e
docker buildx --builder default b --cache-from type=local,src=/tmp/c --output type=docker -t openclaw:local "$CLONE"
