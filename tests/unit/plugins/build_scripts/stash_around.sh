#!/usr/bin/env bash
set -euo pipefail
cd "$CLONE"
echo change > extensions/a.ts
git stash push -q
git pull -q 2>/dev/null || true
git stash pop -q
docker build -t openclaw:local .
git checkout -q -- .
