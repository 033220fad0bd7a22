#!/bin/bash
# Builds the image.
cd "$CLONE"
docker build -t openclaw:local .
