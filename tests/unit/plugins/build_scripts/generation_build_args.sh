#!/bin/bash
set -euo pipefail
cd "${CLONE:-/home/openclaw/openclaw}"

restore() {
  git restore Dockerfile extensions
}
trap restore EXIT

# === 1. Patch ===
grep -q 'docker.io' Dockerfile || sed -i '/^USER node$/i RUN echo docker.io' Dockerfile

# === 2. Build ===
EXTRA_ARGS=(--build-arg "OPENCLAW_EXTENSIONS=a b")
build_image() {
  local tag=$1
  DOCKER_BUILDKIT=1 docker build \
    --build-arg OPENCLAW_DOCKER_APT_PACKAGES="gosu iptables" \
    "${EXTRA_ARGS[@]}" \
    --target runtime \
    -f Dockerfile \
    -t "$tag" \
    . 2>&1 | tee build.log
}
build_image openclaw:local
rm -f build.log
