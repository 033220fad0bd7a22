"""Changes to the firewall rules of enforcement level `network`. The firewall entrypoint must revert each change.

A client with access to the nested Docker engine can make these changes: it can start a privileged container in the
gateway's network namespace.
"""

from __future__ import annotations

from lab.hosts import in_gateway, on, soon

_IMAGE = "openclaw-sandbox:bookworm-slim"
RESTORED_SECONDS = 30
"""Maximum seconds until the firewall entrypoint has restored the rules."""

_BASE_CHAINS = {"INPUT": "EGRESS-INPUT", "FORWARD": "DOCKER-USER", "OUTPUT": "EGRESS-OUTPUT"}
_EACH_CHAIN = {
    "each chain flushed": "{tables} -F {chain}",
    "a bypass in each chain": "{tables} -I {chain} -j RETURN",
    "the first rule of each chain gone": "{tables} -D {chain} 1",
    "an ACCEPT first in each base chain": "{tables} -I {base} 1 -j ACCEPT",
    "no jump in each base chain": "{tables} -D {base} -j {chain}",
    "a jump further down in each base chain": "{tables} -D {base} -j {chain}; {tables} -I {base} -j ACCEPT;"
    " {tables} -A {base} -j {chain}; {tables} -A {base} -j {chain}",
}
CHANGES = {
    **{
        what: "; ".join(
            command.format(tables=tables, base=base, chain=chain)
            for tables in ("iptables", "ip6tables")
            for base, chain in _BASE_CHAINS.items()
        )
        for what, command in _EACH_CHAIN.items()
    },
    "the shared port flushed": "iptables -t nat -F EGRESS-SHARED-PORT",
    "an ACCEPT before the shared port": "iptables -t nat -I PREROUTING -j ACCEPT",
    "the shared port leads elsewhere": "iptables -t nat -I EGRESS-SHARED-PORT -p tcp -j DNAT"
    " --to-destination 172.31.250.2:8080",
    "no jump to the shared port": "iptables -t nat -D PREROUTING -j EGRESS-SHARED-PORT",
    "other policies, and everything flushed": "iptables -P OUTPUT ACCEPT; iptables -P FORWARD ACCEPT; iptables -F;"
    " iptables -t nat -F EGRESS-SHARED-PORT; ip6tables -P FORWARD ACCEPT; ip6tables -F; ip6tables -X",
}
"""Commands that change the firewall rules, each with its effect. 172.31.250.2 is the proxy on the internal network."""


# Omit RETURN if it is the last rule of DOCKER-USER: dockerd appends it, and it has no effect there. Print it at any
# other position, where it can bypass the rules.
_WITHOUT_DOCKERS = "sed '${/^-A DOCKER-USER -j RETURN$/d;}'"


def rules() -> list[str]:
    """Return the first rule of each base chain, and every rule of the firewall entrypoint's chains."""
    show = "; ".join(
        [f"{tables} -S {base} | sed -n 2p; {tables} -S {chain} | {_WITHOUT_DOCKERS}"
         for tables in ("iptables", "ip6tables") for base, chain in _BASE_CHAINS.items()]
        + ["iptables -t nat -S PREROUTING | sed -n 2p; iptables -t nat -S EGRESS-SHARED-PORT"]
    )  # fmt: skip
    text = on("vps1", "docker", "exec", "--user", "0:0", "openclaw-gateway", "sh", "-c", f"{show}; true")
    return text.splitlines()


def restored(command: str) -> bool:
    """Run the command in a privileged container. Return whether the previous rules are restored in time."""
    before = rules()
    container = ("docker", "run", "--rm", "--user", "0", "--privileged", "--network", "host", "--volume", "/:/gateway")
    in_gateway(*container, _IMAGE, "chroot", "/gateway", "sh", "-ec", command)
    return soon(lambda: rules() == before, RESTORED_SECONDS)
