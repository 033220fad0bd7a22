#!/bin/bash
# Starts as root, as on an operator's host; there it starts a nested dockerd first.
set -e
mkdir -p /home/node/.openclaw
chown node:node /home/node/.openclaw
exec gosu node "$@"
