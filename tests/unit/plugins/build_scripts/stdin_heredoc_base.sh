#!/bin/bash
set -e
docker build -t base - <<'EOF'
FROM node:24
RUN npm install -g pnpm
EOF
cd "$CLONE"
docker build --build-arg BASE=base -t openclaw:local .
