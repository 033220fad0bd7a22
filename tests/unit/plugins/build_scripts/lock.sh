#!/bin/bash
exec 9>"$HOME/build.lock"
flock -n 9 || exit 75
flock "$HOME/other.lock" docker build -t openclaw:local "$CLONE"
