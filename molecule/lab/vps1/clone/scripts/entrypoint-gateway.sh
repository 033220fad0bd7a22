#!/bin/bash
# Starts as root: first a dockerd of its own, in which OpenClaw runs its sandboxes, then OpenClaw as the user node.
set -e
mkdir -p /home/node/.openclaw
chown -R node:node /home/node/.openclaw
# OpenClaw starts sandboxes in no other dockerd than the one that runs its own container. Here that is not to be had, so it
# must not see that it is in a container: by this file, nor by what Docker mounts (cgroup: private hides the third mark).
rm -f /.dockerenv
for file in hosts hostname resolv.conf; do
  cp "/etc/$file" "/tmp/$file"
  umount "/etc/$file"
  cat "/tmp/$file" >"/etc/$file"
done
rm -f /var/run/docker.pid
dockerd --dns 198.51.100.10 >/var/log/dockerd.log 2>&1 &
for _ in {1..60}; do
  docker info >/dev/null 2>&1 && break
  sleep 0.5
done
docker info >/dev/null
exec gosu node "$@"
