#!/bin/sh
cd "$CLONE" || exit 1
exec docker build -t openclaw:local .
