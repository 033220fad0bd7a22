"""What the level `application` does not stop, by place; README's threat model says the same in words.

At this level nothing but a client's own settings leads to the proxy: whoever ignores them, or asks another class's
listener, is not stopped. The level `network` has no such list.
"""

from __future__ import annotations

PAST_THE_PROXY = frozenset(
    {
        "direct_tcp", "ports_of_mail_and_shells", "direct_udp", "quic", "ping", "few_hops", "source_ports",
        "other_transports", "resolver_of_our_own", "resolver_that_is_configured", "dns_over_tls",
        "without_the_proxy_variables", "automatic_configuration", "hosts_answer_pings",
    }
)  # fmt: skip
"""Packets go where they are sent."""

INWARDS = frozenset({"other_classes_listeners", "addresses_of_hosts"})
"""A nested container reaches the gateway, its hosts, and every listener of the proxy."""

AS_ROOT = frozenset({"raw_ip", "ip_options_and_fragments", "borrowed_source_addresses"})
"""Who may open raw sockets sends what it likes."""

ON_ONE_BRIDGE = frozenset({"containers_of_other_classes"})
"""Code sandboxes and builds share the engine's own bridge."""

AT_APPLICATION = {
    "sandbox": PAST_THE_PROXY | INWARDS | ON_ONE_BRIDGE,
    "browser": PAST_THE_PROXY | INWARDS,
    "build": PAST_THE_PROXY | INWARDS | ON_ONE_BRIDGE | AS_ROOT,
    "gateway": PAST_THE_PROXY | {"other_hosts"},
}
"""By place. A neighbour on a network of its own is not there: at this level no network is known or unknown."""
