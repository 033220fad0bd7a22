#!/usr/bin/env bash
set -eu
SUDO=""
[ -n "${NEEDS_NO_SUDO:-}" ] || SUDO="sudo"
cd "$CLONE"
$SUDO docker build -t openclaw:local .
