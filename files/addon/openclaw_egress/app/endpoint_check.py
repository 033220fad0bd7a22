"""A check for an endpoint that receives records unencrypted over a public network."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit


def plain_export_warning(endpoint: str, look_up: Callable[..., list[Any]] = socket.getaddrinfo) -> str | None:
    """Return a warning if records, which contain prompts, would cross a public network unencrypted; else None."""
    parts = urlsplit(endpoint)
    if parts.scheme != "http" or not parts.hostname:
        return None
    try:
        found = [str(answer[4][0]).partition("%")[0] for answer in look_up(parts.hostname, parts.port or 80)]
        public = sorted({address for address in found if ipaddress.ip_address(address).is_global})
    except (OSError, UnicodeError, ValueError):
        return None
    if not public:
        return None
    return (
        f"records go to {parts.hostname} ({public[0]}) over plain HTTP: anyone on the network path can read "
        "prompts and responses. Use an https:// URL in OTEL_EXPORTER_OTLP_LOGS_ENDPOINT, or an address inside a VPN."
    )
