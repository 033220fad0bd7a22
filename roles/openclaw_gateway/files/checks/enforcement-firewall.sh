#!/bin/sh
# Check the firewall rules in the gateway's network namespace: the first rule of each base chain, the last rule of each of our
# chains, and the rules of each class. This runs in the gateway's container as root.
exec 2>&1
rules() { "$1" --wait --table "$2" --list-rules "$3" | grep '^-A'; }
for tool in iptables ip6tables; do
  test $tool = iptables || test -e /proc/net/if_inet6 || continue
  for jump in "filter FORWARD DOCKER-USER" "filter INPUT EGRESS-INPUT" "filter OUTPUT EGRESS-OUTPUT" "nat PREROUTING EGRESS-SHARED-PORT"; do
    # shellcheck disable=SC2086  # Split $jump into table, chain and target.
    set -- $jump
    test "$tool $1" != "ip6tables nat" || continue
    test "$(rules $tool "$1" "$2" | head -n 1)" = "-A $2 -j $3" || { echo "$tool: the first rule of $2 is not -j $3"; exit 1; }
  done
  # Ignore the rule that dockerd appends to DOCKER-USER after our last rule.
  for chain in DOCKER-USER EGRESS-INPUT EGRESS-OUTPUT; do
    last=$(rules $tool filter "$chain" | grep -vxF -- '-A DOCKER-USER -j RETURN' | tail -n 1)
    case "$last" in "-A $chain "*"-j REJECT"*) ;; *) echo "$tool: the last rule of $chain is not -j REJECT"; exit 1 ;; esac
  done
done
for at in $TIED; do
  bridge=${at%=*} port=${at#*=}
  if ! rules iptables filter DOCKER-USER | grep -q -- "-d $PROXY/32 -i $bridge .*--dport $port -j RETURN" ||
    ! rules iptables nat EGRESS-SHARED-PORT | grep -q -- "-d $PROXY/32 -i $bridge .*-j DNAT --to-destination $PROXY:$port"; then
    echo "no rules for $at"
    exit 1
  fi
done
echo "all rules are present: ${TIED:-no class has a network}"
