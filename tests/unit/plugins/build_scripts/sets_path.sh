#!/bin/bash
set -e
export PATH="$FAKE_BIN:/usr/local/bin:/usr/bin:/bin"
cd "$CLONE"
docker build -t openclaw:local .
