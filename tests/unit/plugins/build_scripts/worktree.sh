#!/usr/bin/env bash
set -euo pipefail
work=$(mktemp -d)
git -C "$CLONE" worktree add -q --detach "$work/openclaw" v1
docker build -t openclaw:local "$work/openclaw"
git -C "$CLONE" worktree remove --force "$work/openclaw"
rmdir "$work"
