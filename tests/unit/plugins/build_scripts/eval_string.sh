#!/bin/bash
set -e
CMD="docker build"
for tag in local latest; do CMD="$CMD -t openclaw:$tag"; done
eval "$CMD \"$CLONE\""
