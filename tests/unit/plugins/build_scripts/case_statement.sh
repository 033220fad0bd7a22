#!/bin/sh
case ${1:-build} in
  build) docker build -t openclaw:local "$CLONE" ;;
  clean) docker image prune -f ;;
esac
