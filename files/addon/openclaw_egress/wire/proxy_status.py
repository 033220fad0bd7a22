"""The Proxy-Status field (RFC 9209), which lists the intermediaries that handled a response. Pure functions."""

from __future__ import annotations

import re

OUR_NAME = b"openclaw-egress"
"""The name of this proxy in the Proxy-Status field."""

# A structured-field list (RFC 8941, section 3.1) whose members are strings or tokens with parameters.
_STRING = rb'"(?:[ !#-\[\]-~]|\\["\\])*"'
_TOKEN = rb"[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*"
_VALUE = rb"(?:%b|%b|-?[0-9]{1,15}(?:\.[0-9]{1,3})?|\?[01]|:[A-Za-z0-9+/=]*:)" % (_STRING, _TOKEN)
_MEMBER = re.compile(rb"(%b|%b)(?:; *[a-z*][a-z0-9_\-.*]*(?:=%b)?)*+" % (_STRING, _TOKEN, _VALUE))
_SEPARATOR = re.compile(rb"[ \t]*,[ \t]*")


def without_our_name(value: bytes) -> bytes:
    """Return the value of one field line without the members that name this proxy. The comparison ignores case.

    If the value is malformed, return an empty value, because recipients may read a malformed value in different ways.
    """
    value = value.strip(b" \t")
    kept: list[bytes] = []
    at = 0
    while (found := _MEMBER.match(value, at)) is not None:
        if found[1].strip(b'"').strip().lower() != OUR_NAME:
            kept.append(found[0])
        at = found.end()
        if at == len(value):
            return b", ".join(kept)
        if (separator := _SEPARATOR.match(value, at)) is None:
            break
        at = separator.end()
    return b""
