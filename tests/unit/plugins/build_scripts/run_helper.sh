#!/bin/bash
set -e
run() { echo "+ $*"; "$@"; }
run docker build -t openclaw:local "$CLONE"
