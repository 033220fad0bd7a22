#!/bin/bash
set -e
printf 'FROM scratch\n' | docker build -t base -
docker build -t openclaw:local "$CLONE"
