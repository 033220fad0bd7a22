#!/bin/bash
set -e
docker build --target=build -t openclaw:local "$CLONE"
