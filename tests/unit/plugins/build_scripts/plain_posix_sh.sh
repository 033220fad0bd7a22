#!/bin/sh
set -eu
docker build --tag=openclaw:local "$CLONE"
