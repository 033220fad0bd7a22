#!/usr/bin/env bash
set -euo pipefail

# ─── 0. Settings ───────────────────────────────
CLONE="${CLONE:-/home/openclaw/openclaw}"
PROJECT="${PROJECT:-demo}"
VERSIONS=("${@:-v1}")

cd "$CLONE"
if [ -n "$(git status --porcelain)" ]; then
  echo "the clone is not clean" >&2
  exit 4
fi

# ─── 1. Each version ───────────────────────────
for spec in "${VERSIONS[@]}"; do
  case "$spec" in
    v*) base="main" ;;
    *)  base="$spec" ;;
  esac
  git checkout -q -B "build/$spec" "$base"
  grep -q 'docker.io' Dockerfile || sed -i '/^USER node$/i RUN echo docker.io' Dockerfile
  git commit -q -am "Patches for $spec" || true

  # the image
  docker build \
    --build-arg "SPEC=$spec" \
    -t "openclaw-$PROJECT:$spec" .
  git checkout -q main || true
done
