"""Keeps traffic out of the logs.

mitmproxy logs pieces of what it received when a message is malformed (``…completing request headers: b'…
Authorization: Bearer …'``), at any verbosity. Every record of its loggers passes here first: byte strings and long
values in the message are replaced by their length.
"""

from __future__ import annotations

import logging
import re
from typing import Any

_BYTES_LITERAL = re.compile(r"""\bb(?P<quote>['"])(?:\\.|(?!(?P=quote)).)*(?P=quote)?""", re.DOTALL)
_HEX_BLOB = re.compile(r"\b[0-9a-f]{40,}\b")
_HEADER_LIKE = re.compile(
    r"(?i)\b([\w-]*(?:auth|token|secret|key|cookie|credential|signature|password)[\w-]*)(\s*[:=]\s*)\S.*", re.DOTALL
)
MAX_MESSAGE = 600


def without_traffic(message: str) -> str:
    """``message`` without anything that may have come from a client or a server."""
    message = _BYTES_LITERAL.sub(lambda found: f"<{len(found.group()) - 3} bytes withheld>", message)
    message = _HEX_BLOB.sub(lambda found: f"<{len(found.group()) // 2} bytes withheld>", message)
    message = _HEADER_LIKE.sub(r"\1\2<withheld>", message)
    message = "".join(char if char.isprintable() else "�" for char in message)
    return message if len(message) <= MAX_MESSAGE else message[:MAX_MESSAGE] + "…"


def guard_mitmproxy_logs() -> None:
    """Make every log record of mitmproxy harmless, whoever handles it later. Calling it twice changes nothing."""
    factory = logging.getLogRecordFactory()
    if getattr(factory, "guards_mitmproxy", False):
        return

    def make(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = factory(*args, **kwargs)
        if record.name.startswith("mitmproxy"):
            record.msg, record.args = without_traffic(record.getMessage()), None
            # Exceptions carry the data in their text; the traceback's last line would print it.
            if record.exc_info and record.exc_info[0] is not None:
                record.msg += f" ({record.exc_info[0].__name__})"
                record.exc_info = None
        return record

    make.guards_mitmproxy = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(make)
