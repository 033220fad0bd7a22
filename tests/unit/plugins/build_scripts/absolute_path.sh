#!/bin/bash
set -e
ln -sf "$(command -v docker)" "$HOME/bin/docker"
"$HOME/bin/docker" build -t openclaw:local "$CLONE"
