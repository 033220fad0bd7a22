#!/bin/bash
set -e
docker \
  build \
  -t openclaw:local \
  "$CLONE"
