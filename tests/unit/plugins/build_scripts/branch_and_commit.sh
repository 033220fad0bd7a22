#!/bin/bash
set -e
cd "$CLONE"
git checkout -q v2
git checkout -q -B patched/1
sed -i 's/node/node /' Dockerfile
git commit -qam patched
docker build -t openclaw:local .
git checkout -q main
