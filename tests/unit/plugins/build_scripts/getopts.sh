#!/usr/bin/env bash
set -euo pipefail
tag=openclaw:local no_cache=()
while getopts "nt:" option; do
  case $option in
    n) no_cache=(--no-cache) ;;
    t) tag=$OPTARG ;;
    *) exit 64 ;;
  esac
done
docker build ${no_cache[@]+"${no_cache[@]}"} -t "$tag" "$CLONE"
