#!/bin/bash
set -e
docker() {
  echo "+ docker $*" >&2
  command docker "$@"
}
docker build -t openclaw:local "$CLONE"
