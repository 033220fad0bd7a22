#!/bin/sh
# Create the Docker network of a class.
#
#   class-network probe  CLASS NAME SUBNET GATEWAY RANGE    fail if it cannot be created, or exists with another subnet
#   class-network check  CLASS NAME SUBNET GATEWAY RANGE    print the name if the network does not exist
#   class-network create CLASS NAME SUBNET GATEWAY RANGE    create it and print the name
set -eu
action=$1 class=$2 name=$3 subnet=$4 gateway=$5 range=$6
create() { # create NAME
  # `internal` omits routes out of the network, and `inhibit_ipv4` the address of the host, whose services the containers
  # could otherwise reach.
  docker network create --driver bridge --internal --opt com.docker.network.bridge.inhibit_ipv4=true \
    --subnet "$subnet" --gateway "$gateway" --ip-range "$range" --label "openclaw.egress.class=$class" "$1" >/dev/null
}
settings='{{range .IPAM.Config}}{{.Subnet}}{{end}} {{.Internal}} {{index .Labels "openclaw.egress.class"}} '
settings="$settings"'{{index .Options "com.docker.network.bridge.inhibit_ipv4"}}'
if found=$(docker network inspect --format "$settings" "$name" 2>/dev/null); then
  [ "$found" != "$subnet true $class true" ] || exit 0
  echo "the network $name exists with other settings ($found, not $subnet true $class true): remove it with" \
    "\`docker network rm\`, or choose another name" >&2
  exit 1
fi
case $action in
  probe)
    docker network rm "$name-probe" >/dev/null 2>&1 || true
    create "$name-probe"
    docker network rm "$name-probe" >/dev/null
    ;;
  check) echo "$name" ;;
  create)
    create "$name"
    echo "$name"
    ;;
  *)
    echo "class-network: unknown action $action: use probe, check or create" >&2
    exit 2
    ;;
esac
