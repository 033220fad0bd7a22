"""Egress bypasses that succeed at enforcement level `application`, by test location. README's threat model lists them.

At this level, clients use the proxy only because they are configured to. Nothing stops a client that ignores its
settings, or that connects to the listener of another class. At level `network`, no bypass is expected.
"""

from __future__ import annotations

PAST_THE_PROXY = frozenset(
    {
        "direct_tcp", "ports_of_mail_and_shells", "direct_udp", "quic", "ping", "few_hops", "source_ports",
        "other_transports", "resolver_of_our_own", "resolver_that_is_configured", "dns_over_tls",
        "without_the_proxy_variables", "automatic_configuration", "hosts_answer_pings",
    }
)  # fmt: skip
"""Techniques that send packets directly, without the proxy. At this level nothing stops them."""

INWARDS = frozenset({"other_classes_listeners", "addresses_of_hosts"})
"""Techniques that connect to the gateway, the hosts or any listener of the proxy. Nested containers can reach these."""

AS_ROOT = frozenset({"raw_ip", "ip_options_and_fragments", "borrowed_source_addresses"})
"""Techniques that need raw sockets. With raw sockets a client can send any packet."""

ON_ONE_BRIDGE = frozenset({"containers_of_other_classes"})
"""Techniques that succeed because code sandboxes and builds share the default bridge of the nested Docker engine."""

AT_APPLICATION = {
    "sandbox": PAST_THE_PROXY | INWARDS | ON_ONE_BRIDGE,
    "browser": PAST_THE_PROXY | INWARDS,
    "build": PAST_THE_PROXY | INWARDS | ON_ONE_BRIDGE | AS_ROOT,
    "gateway": PAST_THE_PROXY | {"other_hosts"},
}
"""Expected bypasses by test location. "neighbour" is not tested: this level has no rules for unknown networks."""
