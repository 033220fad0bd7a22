#!/bin/bash
set -e
id=$(docker build -q "$CLONE")
docker tag "$id" openclaw:local
