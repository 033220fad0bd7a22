#!/bin/bash
# Builds openclaw:local from the clone, with the operator's patches.
set -euo pipefail

OPENCLAW_DIR=/home/openclaw/openclaw
cd "$OPENCLAW_DIR"

# ── 1. Version ───────────────────────────────────────────────
VERSION=$(git rev-parse --short HEAD)
echo "Building openclaw:local from $VERSION"

# ── 2. Patch the Dockerfile ──────────────────────────────────
if ! grep -q "operator-tools" Dockerfile; then
  sed -i '/^USER node/i RUN echo operator-tools > /app/operator-tools' Dockerfile
fi

# ── 3. Build ─────────────────────────────────────────────────
docker build \
  --build-arg OPENCLAW_BASE=openclaw-lab-base \
  -t openclaw:local .

# ── 4. Restore ───────────────────────────────────────────────
git checkout -- Dockerfile 2>/dev/null || true
echo "Done."
