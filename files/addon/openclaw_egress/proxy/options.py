"""The mitmproxy options that this software depends on.

All of them are set explicitly, because their defaults can change between versions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import certifi

from openclaw_egress.settings import SettingsError

SILENCE_SECONDS = 3600
"""Timeout for a connection without data, in seconds.

mitmproxy's default of 600 s is too short for a model that sends nothing while it reasons.
"""


def safe_options(confdir: Path, trusted_ca: Path) -> dict[str, Any]:
    """Return the options that both `egress run` and a stock mitmdump need."""
    return {
        # Connect only after a decision, and use each connection only for the destination it was opened for.
        "connection_strategy": "lazy",
        # Use only HTTP/1.1 for inspected hosts, to exclude connection coalescing and downgrade attacks.
        "http2": False,
        "http3": False,
        # Refuse bytes that are not HTTP, because they would bypass the hooks.
        "rawtcp": False,
        "websocket": True,
        # Do not copy names, such as wildcards, from upstream certificates: a leaf certificate must name only the
        # requested host.
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
    """Return the additional options for a stock mitmdump. `egress run` does not load the add-ons that define them."""
    return {
        # Do not let the proxy itself respond to requests for mitm.it.
        "onboarding": False,
        # Disable mitmdump's flow output, which contains request lines with their queries.
        "flow_detail": 0,
        "show_ignored_hosts": False,
        "ignore_hosts": [],
        "allow_hosts": [],
        "tcp_hosts": [],
    }


def trusted_roots(extra: Path | None, directory: Path) -> Path:
    """Write the public root certificates and the operator's to one file, and return its path.

    One file is necessary, because the option ``ssl_verify_upstream_trusted_ca`` replaces the public certificates.
    """
    roots = Path(certifi.where()).read_bytes()
    if extra is not None:
        try:
            added = extra.read_bytes()
        except OSError as error:
            raise SettingsError(f"EGRESS_UPSTREAM_CA: {extra} cannot be read: {error.strerror}") from None
        if b"-----BEGIN CERTIFICATE-----" not in added:
            raise SettingsError(f"EGRESS_UPSTREAM_CA: {extra} contains no certificate in PEM format")
        roots += b"\n" + added
    file = directory / "trusted-roots.pem"
    file.write_bytes(roots)
    return file
