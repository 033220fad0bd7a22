"""A filter for mitmproxy's logs, which must not contain traffic.

When a message is malformed, mitmproxy logs parts of it at any verbosity (``…completing request headers: b'…
Authorization: Bearer …'``). Every record of its loggers passes this filter, which replaces byte strings and other
values that may come from traffic.
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
    """Replace each value in ``message`` that may come from a client or a server, and return the result."""
    message = _BYTES_LITERAL.sub(lambda found: f"<{len(found.group()) - 3} bytes withheld>", message)
    message = _HEX_BLOB.sub(lambda found: f"<{len(found.group()) // 2} bytes withheld>", message)
    message = _HEADER_LIKE.sub(r"\1\2<withheld>", message)
    message = "".join(char if char.isprintable() else "�" for char in message)
    return message if len(message) <= MAX_MESSAGE else message[:MAX_MESSAGE] + "…"


def guard_mitmproxy_logs() -> None:
    """Filter every log record of mitmproxy before a handler receives it. A second call has no effect."""
    factory = logging.getLogRecordFactory()
    if getattr(factory, "guards_mitmproxy", False):
        return

    def make(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = factory(*args, **kwargs)
        if record.name.startswith("mitmproxy"):
            record.msg, record.args = without_traffic(record.getMessage()), None
            # Log only the type of the exception: its text, which a traceback prints, can contain traffic.
            if record.exc_info and record.exc_info[0] is not None:
                record.msg += f" ({record.exc_info[0].__name__})"
                record.exc_info = None
        return record

    make.guards_mitmproxy = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(make)
