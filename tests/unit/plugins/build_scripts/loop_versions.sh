#!/usr/bin/env bash
set -euo pipefail
cd "$CLONE"
for version in v1 v2; do
  git checkout -q "$version"
  docker build --build-arg "VERSION=$version" -t "openclaw:$version" .
done
git checkout -q main
