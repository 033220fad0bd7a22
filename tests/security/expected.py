"""Egress bypasses that the level `application` does not stop, by place; the README's threat model lists them too.

At this level a client uses the proxy only because of its settings: a client that ignores them, or calls the listener
of another class, is not stopped. The level `network` has no such list.
"""

from __future__ import annotations

PAST_THE_PROXY = frozenset(
    {
        "direct_tcp", "ports_of_mail_and_shells", "direct_udp", "quic", "ping", "few_hops", "source_ports",
        "other_transports", "resolver_of_our_own", "resolver_that_is_configured", "dns_over_tls",
        "without_the_proxy_variables", "automatic_configuration", "hosts_answer_pings",
    }
)  # fmt: skip
"""Techniques that send packets past the proxy: at this level nothing stops them."""

INWARDS = frozenset({"other_classes_listeners", "addresses_of_hosts"})
"""Techniques against the gateway, the hosts and every listener of the proxy, which a nested container can reach."""

AS_ROOT = frozenset({"raw_ip", "ip_options_and_fragments", "borrowed_source_addresses"})
"""Techniques that need raw sockets, with which a client can send any packet."""

ON_ONE_BRIDGE = frozenset({"containers_of_other_classes"})
"""Techniques that succeed because code sandboxes and builds share the default bridge of the nested Docker engine."""

AT_APPLICATION = {
    "sandbox": PAST_THE_PROXY | INWARDS | ON_ONE_BRIDGE,
    "browser": PAST_THE_PROXY | INWARDS,
    "build": PAST_THE_PROXY | INWARDS | ON_ONE_BRIDGE | AS_ROOT,
    "gateway": PAST_THE_PROXY | {"other_hosts"},
}
"""Expected bypasses by place. The place "neighbour" is missing: this level does not distinguish known networks."""
