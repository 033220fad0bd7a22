#!/bin/bash
set -e
build() { docker build -t openclaw:local "$CLONE"; }
export -f build
bash -c build
