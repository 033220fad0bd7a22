"""The mitmproxy options that this software depends on, each with its reason: defaults could move."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SILENCE_SECONDS = 3600
"""mitmproxy's 600 s of silence are too short for a model that thinks."""


def safe_options(confdir: Path, trusted_ca: Path) -> dict[str, Any]:
    """Options that hold for the lean proxy and for a stock mitmdump alike."""
    return {
        # Nothing is dialled before a decision, and one connection serves what it was opened for.
        "connection_strategy": "lazy",
        # Inspected hosts speak HTTP/1.1: no coalescing of names, no downgrade games.
        "http2": False,
        "http3": False,
        # Bytes that are no HTTP would pass by the hooks.
        "rawtcp": False,
        "websocket": True,
        # Leaves name the requested host only; the upstream's wildcards would be copied into them.
        "upstream_cert": False,
        "ssl_insecure": False,
        "ssl_verify_upstream_trusted_ca": str(trusted_ca),
        "validate_inbound_headers": True,
        "store_streamed_bodies": False,
        "stream_large_bodies": None,
        "confdir": str(confdir),
        "tcp_timeout": SILENCE_SECONDS,
    }


def stock_options() -> dict[str, Any]:
    """Further ones that only a stock mitmdump has."""
    return {
        # mitm.it would be answered by the proxy itself.
        "onboarding": False,
        # It prints request lines with their queries.
        "flow_detail": 0,
        "show_ignored_hosts": False,
        "ignore_hosts": [],
        "allow_hosts": [],
        "tcp_hosts": [],
    }
