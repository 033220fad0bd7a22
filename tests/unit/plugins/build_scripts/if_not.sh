#!/bin/bash
cd "$CLONE"
if ! docker build -t openclaw:local .; then
  echo "the build failed" >&2
  exit 17
fi
