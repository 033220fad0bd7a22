#!/usr/bin/env bash
set -Eeuo pipefail
shopt -s inherit_errexit
IFS=$'\n\t'

cd "$CLONE"
docker build \
  --pull \
  --build-arg "OPENCLAW_DOCKER_APT_PACKAGES=git jq" \
  -t openclaw:local \
  .
