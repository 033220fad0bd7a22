"""Two small mitmproxy layers: one that ends a connection, one decision about what bytes after CONNECT may be."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from mitmproxy.proxy import commands, events, layer


class Refuse(layer.Layer):
    """Closes the client's connection without an answer; for bytes that are no HTTP we could answer to."""

    def _handle_event(self, event: events.Event) -> Generator[commands.Command, Any, None]:
        if isinstance(event, events.Start):
            yield commands.CloseConnection(self.context.client)


def looks_like_tls(data: bytes) -> bool:
    """Whether the first bytes are a TLS handshake record (RFC 8446, section 5.1): type 22, version 3.x."""
    return data[:1] == b"\x16" and (len(data) < 2 or data[1] == 3)
