#!/bin/sh
# Create the Docker network of a class. If the host has several gateways, also create the network of each gateway.
#
#   class-network probe  CLASS NAME SUBNET GATEWAY RANGE PARENT [DRIVER]    fail if it cannot be created, or exists with
#                                                                          other settings
#   class-network check  CLASS NAME SUBNET GATEWAY RANGE PARENT [DRIVER]    print the name if the network does not exist
#   class-network create CLASS NAME SUBNET GATEWAY RANGE PARENT [DRIVER]    create it and print the name
#
# PARENT is a bridge without members, or empty: Docker then creates a dummy interface. DRIVER is macvlan by default, and bridge
# for a gateway at enforcement level `application`.
set -eu
action=$1 class=$2 name=$3 subnet=$4 gateway=$5 range=$6 parent=$7 driver=${8:-macvlan}
create() { # create NAME
  if [ "$driver" = bridge ]; then
    # `inhibit_ipv4` omits the address of the host. No parent is needed, so this works with every kernel.
    docker network create --driver bridge --internal --opt com.docker.network.bridge.inhibit_ipv4=true \
      --subnet "$subnet" --gateway "$gateway" --ip-range "$range" --label "openclaw.egress.class=$class" "$1" >/dev/null
    return
  fi
  # Use macvlan: its containers reach each other and nothing else. With the driver `bridge`, a container with raw sockets can
  # send packets to every address of the host, because the host receives frames on the bridge. `internal` omits routes.
  docker network create --driver macvlan --internal ${parent:+"--opt=parent=$parent"} \
    --subnet "$subnet" --gateway "$gateway" --ip-range "$range" --label "openclaw.egress.class=$class" "$1" >/dev/null
}
if [ "$driver" = macvlan ] && [ -n "$parent" ] &&
  ! { [ -d "/sys/class/net/$parent/brif" ] && [ -z "$(ls "/sys/class/net/$parent/brif")" ]; }; then
  echo "$parent is not a bridge without members. Create one (ip link add NAME type bridge; ip link set NAME up)" >&2
  exit 1
fi
settings='{{.Driver}} {{range .IPAM.Config}}{{.Subnet}}{{end}} {{.Internal}} {{index .Labels "openclaw.egress.class"}}'
if found=$(docker network inspect --format "$settings" "$name" 2>/dev/null); then
  [ "$found" != "$driver $subnet true $class" ] || exit 0
  echo "the network $name exists with other settings ($found, not $driver $subnet true $class): remove it with" \
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
