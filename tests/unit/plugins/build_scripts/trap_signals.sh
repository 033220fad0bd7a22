#!/bin/bash
set -e
cd "$CLONE"
cleanup() { git stash -q || true; git stash drop -q 2>/dev/null || true; echo cleaned; }
trap cleanup EXIT INT TERM HUP
echo '# edited' >> Dockerfile
docker build -q -t openclaw:local .
