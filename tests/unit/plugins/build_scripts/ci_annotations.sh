#!/usr/bin/env bash
set -euo pipefail
group() { echo "::group::$1"; }
group "docker build"
docker build --label "commit=$(git -C "$CLONE" describe --tags)" -t openclaw:local "$CLONE"
echo "::endgroup::"
