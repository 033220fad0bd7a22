#!/bin/bash
set -e
cd "$CLONE"
docker buildx bake -f docker-bake.hcl gateway
