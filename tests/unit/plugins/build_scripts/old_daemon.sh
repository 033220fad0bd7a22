#!/bin/bash
# The test gives this script a Docker of 2021.
set -e
docker build -t openclaw:local "$CLONE"
