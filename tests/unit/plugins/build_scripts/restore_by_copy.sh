#!/bin/bash
cd "$CLONE" || exit 1
cp Dockerfile Dockerfile.orig
sed -i '/^USER node/i RUN npm install -g extra' Dockerfile
docker build -t openclaw:local .
rc=$?
mv Dockerfile.orig Dockerfile
exit $rc
