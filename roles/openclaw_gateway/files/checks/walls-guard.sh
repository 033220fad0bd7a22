#!/bin/sh
# Check the firewall rules in the gateway's network namespace. Runs in the gateway's container as root.
exec 2>&1
for tool in iptables ip6tables; do
  test $tool = iptables || test -e /proc/net/if_inet6 || continue
  for rule in "FORWARD -j DOCKER-USER" "INPUT -j EGRESS-INPUT" "OUTPUT -j EGRESS-OUTPUT" "DOCKER-USER -j REJECT" "EGRESS-INPUT -j REJECT"; do
    # shellcheck disable=SC2086  # A rule is several words.
    $tool --check $rule || { echo "$tool has no rule $rule"; exit 1; }
  done
done
for at in $TIED; do
  iptables --list-rules DOCKER-USER | grep -q -- "-d $PROXY/32 -i ${at%=*} .*--dport ${at#*=} -j RETURN" || { echo "no rule for $at"; exit 1; }
done
echo "complete: ${TIED:-no class has a network}"
