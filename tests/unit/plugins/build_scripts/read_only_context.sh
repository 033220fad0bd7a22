#!/bin/bash
set -e
chmod -R a-w "$CLONE"
trap 'chmod -R u+w "$CLONE"' EXIT
docker build -t openclaw:local "$CLONE"
