#!/bin/sh
set -e
if command -v podman >/dev/null 2>&1 && [ -n "${USE_PODMAN:-}" ]; then
  podman build -t openclaw:local "$CLONE"
else
  docker build -t openclaw:local "$CLONE"
fi
