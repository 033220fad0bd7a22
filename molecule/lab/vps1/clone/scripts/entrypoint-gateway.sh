#!/bin/bash
# Run as root: start the container's own dockerd, in which OpenClaw runs its sandboxes. Then start OpenClaw as the user
# node.
set -e
mkdir -p /home/node/.openclaw
chown -R node:node /home/node/.openclaw
# In a container, OpenClaw uses only the dockerd that runs this container, but the lab does not offer it. So hide the
# signs of a container: this file and Docker's mounts. `cgroup: private` in the compose file hides the third sign.
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
