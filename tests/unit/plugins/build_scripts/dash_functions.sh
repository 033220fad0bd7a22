#!/bin/dash
set -eu
build() {
  docker build --file "$CLONE/Dockerfile" --tag "$1" "$CLONE"
}
build openclaw:local
