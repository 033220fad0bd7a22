#!/bin/bash
# Start as root: first the container's own dockerd, in which OpenClaw runs its sandboxes, then OpenClaw as the user node.
set -e
mkdir -p /home/node/.openclaw
chown -R node:node /home/node/.openclaw
# In a container OpenClaw uses only the dockerd that runs this container, which the lab does not offer. Hide that it runs in
# a container: this file and Docker's mounts show it (and cgroup: private hides the third sign).
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
