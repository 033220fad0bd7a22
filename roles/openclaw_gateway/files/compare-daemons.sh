#!/bin/sh
# Compare the Docker daemon that the gateway uses with the host's. Print `same` or `other`, or nothing if they cannot be
# compared: the gateway does not run, or has no `docker` command or no daemon.
#
#   compare-daemons CONTAINER USER
set -u
container=$1 user=$2
[ "$(docker container inspect --format '{{.State.Running}}' "$container" 2>/dev/null)" = true ] || exit 0
host=$(docker info --format '{{.ID}}')
[ -n "$host" ] || exit 0
id=$(docker container inspect --format '{{.Id}}' "$container")
inside() { timeout 30 docker exec --user "$who" "$container" docker "$@" 2>&1; }
# OpenClaw's user may have no right to the socket before the operator gives it the socket's group, so try root too.
for who in "$user" 0:0; do
  found=$(inside info --format '{{.ID}}' | tail -n 1)
  case $found in
    "$host") echo same && exit ;;
    # An ID is a UUID, or in older versions twelve groups of four letters and digits.
    *[!A-Za-z0-9:-]* | '') ;;
    *) echo other && exit ;;
  esac
  # A socket proxy may refuse /info. Only the daemon that runs the gateway knows the ID of its container.
  case $(inside container inspect --format '{{.Id}}' "$id") in
    "$id") echo same && exit ;;
    *'No such container'*) echo other && exit ;;
  esac
done
