"""Removal of hop-by-hop header fields (RFC 9110, section 7.6.1)."""

from __future__ import annotations

from mitmproxy import http

from openclaw_egress.wire import http1_syntax


def connection_values(message: http.Request | http.Response) -> list[bytes]:
    """Return the values of the message's Connection fields."""
    return [value for name, value in message.headers.fields if name.lower() == b"connection"]


def drop_hop_by_hop(message: http.Request | http.Response, *, upgrades: bool = False) -> None:
    """Remove the hop-by-hop fields (RFC 9110, section 7.6.1), and the fields that Connection names.

    Keep in Connection only the options that this proxy supports: `close`, `keep-alive` and, if ``upgrades`` is True,
    `upgrade`.
    """
    fields = message.headers.fields
    if http1_syntax.HOP_BY_HOP.isdisjoint([name.lower() for name, _ in fields]):
        return
    named = http1_syntax.connection_options(connection_values(message))
    ours = {b"close", b"keep-alive"} | ({b"upgrade"} if upgrades else set())
    dropped = (http1_syntax.HOP_BY_HOP | named) - http1_syntax.END_TO_END - ({b"upgrade"} if upgrades else set())
    kept = [field for field in fields if field[0].lower() not in dropped]
    if upgrades and any(name.lower() == b"upgrade" for name, _ in fields):
        # Also add `upgrade` to Connection, as every sender of an Upgrade field must (RFC 9110, section 7.8).
        named.add(b"upgrade")
    if options := [option for option in (b"close", b"keep-alive", b"upgrade") if option in named & ours]:
        at = next((index for index, (name, _) in enumerate(fields) if name.lower() == b"connection"), len(fields))
        at = sum(name.lower() not in dropped for name, _ in fields[:at])
        kept.insert(at, (b"Connection", b", ".join(options)))
    message.headers.fields = tuple(kept)
