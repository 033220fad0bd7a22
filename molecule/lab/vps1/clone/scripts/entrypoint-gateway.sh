#!/bin/bash
# Starts as root: first a dockerd of its own, in which OpenClaw runs its sandboxes, then OpenClaw as the user node.
set -e
mkdir -p /home/node/.openclaw
chown -R node:node /home/node/.openclaw
rm -f /var/run/docker.pid
dockerd --dns 198.51.100.10 >/var/log/dockerd.log 2>&1 &
for _ in {1..60}; do
  docker info >/dev/null 2>&1 && break
  sleep 0.5
done
docker info >/dev/null
exec gosu node "$@"
