"""Checks of the syntax of HTTP/1 messages (RFC 9112), on the bytes as received. Pure functions.

If two parsers read a message differently, a client can hide a request, a header or a body from one of them. A request
therefore passes only if all parsers read it in the same way:

- each line ends with CRLF;
- names are tokens;
- values contain no control character except the tab;
- at most one framing header says where the body ends.

Lines of a response may also end with a bare LF (RFC 9112, section 2.2), because the proxy rewrites each head with CRLF.

The reasons that the functions return are fixed texts. They never contain bytes of the message, which may be secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_TOKEN_CLASS = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_TOKEN = _TOKEN_CLASS + rb"+"
_VALUE = rb"[\t\x20-\x7e\x80-\xff]*"

_REQUEST = re.compile(
    rb"(%b) [!-\"$-~]+ HTTP/1\.([01])\r\n(?:%b:%b\r\n)*\r\n" % (_TOKEN, _TOKEN, _VALUE),
)
_RESPONSE = re.compile(
    rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: %b)?\r?\n(?:%b:%b\r?\n)*\r?\n" % (_VALUE, _TOKEN, _VALUE),
)
_FRAMING = re.compile(rb"(?i)\n(content-length|transfer-encoding):[\t ]*([^\r\n]*?)[\t ]*\r?(?=\n)")
_LENGTH = re.compile(rb"0|[1-9][0-9]{0,17}")
_TOKEN_BYTE = re.compile(_TOKEN_CLASS)
_REQUEST_LINE = re.compile(rb"%b [!-\"$-~]+ HTTP/1\.[01]" % _TOKEN)
_START = re.compile(rb"(?:CONNECT |%b{1,32} (?:[/*]|[A-Za-z][A-Za-z0-9+.\-]{0,15}://))" % _TOKEN_CLASS)
_PART_OF_START = re.compile(rb"%b{1,32}(?: (?:[A-Za-z][A-Za-z0-9+.\-]{0,15}(?::/?)?)?)?" % _TOKEN_CLASS)
_VERSION = re.compile(rb" HTTP/1\.[01]")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[\t ]*;%b)?\r\n" % _VALUE)
_CHUNK_SIZE_PADDED = re.compile(rb"([0-9A-Fa-f]{1,15})[\t ]*(?:;%b)?\r\n" % _VALUE)
_TRAILER = re.compile(rb"%b:%b\r\n" % (_TOKEN, _VALUE))
# Names that CGI and WSGI servers treat as Content-Length or Transfer-Encoding. RFC 3875, section 4.1.18, maps only the
# hyphen to `_`, but some servers also map the other characters of a token that are not alphanumeric.
_ALIAS = re.compile(rb"(?i)\n(?:content[!#$%&'*+._`|~^]length|transfer[!#$%&'*+._`|~^]encoding):")
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_BARE_CR = re.compile(rb"\r(?!\n)")
_BARE_LF = re.compile(rb"(?<!\r)\n")
_STATUS_START = b"HTTP/1."

END_OF_HEAD = re.compile(rb"\n\r?\n")
"""Pattern for the end of a head. A line may end without CR (RFC 9112, section 2.2)."""

_LENGTH_NAME, _CODING_NAME = len(b"content-length"), len(b"transfer-encoding")

HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"upgrade", b"http2-settings"}
)
"""Fields that concern one hop (RFC 9110, section 7.6.1), except Transfer-Encoding, which frames the message.

Trailer is among them, because the proxy drops the fields that it announces.
"""

END_TO_END = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"content-type", b"content-encoding", b"content-range"}
)
"""Fields that define where a message goes and how to read it. The proxy keeps them even if Connection names them."""

MAX_CHUNK_LINE_BYTES = 4096
"""Maximum length, in bytes, of a chunk's first line, which contains the size and any extensions."""

MAX_TRAILER_BYTES = 16 * 1024
"""Maximum size, in bytes, of all trailers of a message together. The proxy reads and drops trailers."""


def begins_like_request(data: bytes) -> bool:
    """Return whether the first byte can begin a request line. The result is False for SOCKS and TLS."""
    return not data or _TOKEN_BYTE.match(data) is not None


def is_request_start(data: bytes) -> bool | None:
    """Return whether these are the first bytes of an HTTP request of any version, or None if more bytes are needed.

    A request begins with CONNECT, or with a method and a target that starts with `/`, `*` or a URL's scheme. The first
    lines of SSH, SMTP and Redis do not begin this way. At most 52 bytes are needed.
    """
    if _START.match(data):
        return True
    return None if not data or _PART_OF_START.fullmatch(data) else False


def begins_like_response(data: bytes) -> bool:
    """Return whether the first bytes can begin a status line. A response without a status line is HTTP/0.9."""
    return data[: len(_STATUS_START)] == _STATUS_START[: len(data)]


def request_problem(head: bytes) -> str | None:
    """Return the reason to refuse a request's head, or None if it is valid. ``head`` includes the final empty line."""
    found = _REQUEST.fullmatch(head)
    if found is None:
        return _why_no_request(head)
    method, minor = found[1], found[2]
    if method.upper() in (b"CONNECT", b"HEAD") and not method.isupper():
        return "the method is CONNECT or HEAD in lower case: methods are case-sensitive"
    if _ALIAS.search(head) is not None:
        return "some servers read a header's name as Content-Length or Transfer-Encoding"
    lengths, codings = _framing(head)
    problem = _framing_problem(lengths, codings, minor)
    if problem is None and method == b"CONNECT" and (codings or any(length != b"0" for length in lengths)):
        return "a CONNECT request announces a body, but CONNECT has none"
    return problem


def response_problem(head: bytes) -> str | None:
    """Return the reason to refuse a response's head, or None if it is valid. ``head`` includes the final empty line."""
    found = _RESPONSE.fullmatch(head)
    if found is None:
        return _why_no_response(head)
    lengths, codings = _framing(head)
    if (found[2][:1] == b"1" and (lengths or codings)) or (found[2] == b"204" and codings):
        return "a response without a body has a framing header"
    return _framing_problem(lengths, codings, found[1])


def content_length(fields: Iterable[tuple[bytes, bytes]]) -> int | None:
    """Return the body's length from Content-Length, or None if the body is chunked or its length is unknown.

    Read the raw fields, because this function runs after each read of a body and must be fast.
    """
    found = b""
    for name, value in fields:
        if len(name) == _LENGTH_NAME and name.lower() == b"content-length":
            found = value
        elif len(name) == _CODING_NAME and name.lower() == b"transfer-encoding":
            return None
    return int(found) if found.isdigit() else None


def connection_options(values: Iterable[bytes]) -> set[bytes]:
    """Return the options of all Connection fields, in lower case."""
    return {option for value in values for part in value.split(b",") if (option := part.strip(b" \t").lower())}


def connection_problem(values: Iterable[bytes]) -> str | None:
    """Return the reason to refuse a request's Connection fields, or None if they are valid.

    Refuse them if they name a field such as Host or Content-Length (`END_TO_END`). If the proxy removed such a field,
    the next recipient would see a different destination, or a different end of the body.
    """
    if connection_options(values) & END_TO_END:
        return "the Connection header lists an end-to-end header"
    return None


def chunk_size(line: bytes, *, padded: bool = False) -> int | None:
    """Return the size in a chunk's first line, or None if the line is malformed.

    Args:
        line: the first line of the chunk, with its CRLF.
        padded: whether to accept spaces and tabs after the size, which some old servers send.
    """
    if len(line) > MAX_CHUNK_LINE_BYTES:
        return None
    found = (_CHUNK_SIZE_PADDED if padded else _CHUNK_SIZE).fullmatch(line)
    return int(found[1], 16) if found else None


def is_trailer(line: bytes) -> bool:
    """Return whether ``line``, which includes the CRLF, is a well-formed trailer field."""
    return _TRAILER.fullmatch(line) is not None


def _framing(head: bytes) -> tuple[list[bytes], list[bytes]]:
    lengths: list[bytes] = []
    codings: list[bytes] = []
    for name, value in _FRAMING.findall(head):
        (lengths if name.lower() == b"content-length" else codings).append(value)
    return lengths, codings


def _framing_problem(lengths: list[bytes], codings: list[bytes], minor: bytes) -> str | None:
    if lengths and codings:
        return "both Content-Length and Transfer-Encoding"
    if len(lengths) > 1:
        return "more than one Content-Length"
    if len(codings) > 1:
        return "more than one Transfer-Encoding"
    if lengths and _LENGTH.fullmatch(lengths[0]) is None:
        return "Content-Length is not one decimal number"
    if codings and codings[0].lower() != b"chunked":
        return "Transfer-Encoding is not chunked"
    if codings and minor != b"1":
        return "Transfer-Encoding in HTTP/1.0"
    return None


# ── reasons to refuse a message; these functions are never called for a valid message ────────────────────────────


def _why_no_request(head: bytes) -> str:
    if (problem := _wrong_bytes(head)) is not None:
        return problem
    if _BARE_LF.search(head):
        return "a line ends with a bare LF"
    line, _, fields = head.partition(b"\r\n")
    if not line:
        return "an empty line where the request line belongs"
    if _REQUEST_LINE.fullmatch(line) is None:
        if not line.isascii():
            return "the request line has bytes that are not ASCII: percent-encode them"
        if _VERSION.search(line[-9:]) is None:
            return "the request line does not end with HTTP/1.0 or HTTP/1.1"
        if b"#" in line.partition(b" ")[2]:
            return "the request target has a fragment"
        return "the request line is not a method, a target and a version with one space between them"
    return _why_no_fields(fields)


def _why_no_response(head: bytes) -> str:
    if (problem := _wrong_bytes(head)) is not None:
        return problem
    line, _, fields = head.partition(b"\n")
    if _RESPONSE.fullmatch(line.rstrip(b"\r") + b"\r\n\r\n") is None:
        return "the status line is malformed"
    return _why_no_fields(fields)


def _wrong_bytes(head: bytes) -> str | None:
    if b"\0" in head:
        return "a NUL byte"
    if _BARE_CR.search(head):
        return "a CR that is not part of a line end"
    if _CONTROL.search(head):
        return "a control character"
    return None


def _why_no_fields(fields: bytes) -> str:
    for line in fields.split(b"\n"):
        if line[:1] in (b" ", b"\t"):
            return "a header field is folded over several lines"
        name, colon, _ = line.partition(b":")
        if not line.strip(b"\r"):
            continue
        if not colon:
            return "a header line has no colon"
        if name != name.rstrip(b" \t"):
            return "whitespace before a header's colon"
        if re.fullmatch(_TOKEN, name) is None:
            return "the name of a header is empty or not a token"
    return "the head is malformed"
