#!/bin/bash
set -e
work=$(mktemp -d)
cat > "$work/Dockerfile" <<'EOF'
FROM ghcr.io/openclaw/openclaw:latest
USER root
RUN apt-get update
USER node
EOF
docker build -t openclaw:local "$work"
rm -r "$work"
