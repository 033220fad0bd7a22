#!/usr/bin/env bash
# Builds openclaw:local out of the clone.
set -euo pipefail

CLONE="${CLONE:-/home/openclaw/openclaw}"

# ── 1. Sources ────────────────────────────────────────────────────────────
cd "$CLONE"

# ── 2. Patches ────────────────────────────────────────────────────────────
if ! grep -q 'docker.io' Dockerfile; then
	sed -i '/^USER node$/i RUN echo docker.io gosu' Dockerfile
fi
grep -q 'patched' extensions/a.ts || sed -i 's/plain/patched/' extensions/a.ts

# ── 3. Build ──────────────────────────────────────────────────────────────
echo "docker build of openclaw:local"
docker build -t openclaw:local .

# ── 4. Restore ────────────────────────────────────────────────────────────
git checkout -- Dockerfile extensions/ 2>/dev/null || true
echo "done"
