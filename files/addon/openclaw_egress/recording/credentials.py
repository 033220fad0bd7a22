"""Detection of bodies that contain credentials, by the names of fields and the formats of keys.

The rule, in order:

1. At a token endpoint (`redaction.is_token_endpoint`), no body is recorded.
2. At a path of a model API (`llm.registry.is_model_api`), each body is recorded, because prompts and completions may
   quote keys.
3. At any other path, neither body of the exchange is recorded if one of them contains:
   - a credential field with a value (JSON, JSON lines, form, multipart, XML, YAML, event stream, text);
   - a value in the format of a known key;
   - bytes that cannot be read: an unknown or invalid content coding or, at a path for sessions or accounts, a binary
     content type.

The scan works on bytes and does not parse, so it finds credentials in bodies of any format and content type. It accepts
chunks of any size, takes linear time, and keeps a bounded number of bytes between chunks. The result does not depend on
the boundaries of the chunks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from openclaw_egress.llm.registry import is_model_api
from openclaw_egress.recording.key_formats import KEY_FORMATS
from openclaw_egress.recording.redaction import is_token_endpoint

_SLICE = 128 * 1024

# ── escapes ──────────────────────────────────────────────────────────────────────────────────────────────────────────

# Escape sequences for ASCII characters in JSON and YAML, in forms (percent-encoded up to three times) and in XML.
_ESCAPE = re.compile(
    rb"(\\(?:u00|x)[0-7][0-9A-Fa-f]|%(?:25){0,2}[0-7][0-9A-Fa-f]|&#(?:x[0-7][0-9A-Fa-f]|0?[0-9]{2}|1[01][0-9]|12[0-7]);)"
)
_LONGEST_ESCAPE = 8
_ESCAPE_BEGINS = (b"\\", b"%", b"&")


def _escapes() -> dict[bytes, bytes]:
    found = {}
    for code in range(128):
        low = f"{code:02x}"
        for digits in (low, low.upper()):
            for spelled in (rf"\u00{digits}", rf"\x{digits}", f"%{digits}", f"%25{digits}", f"%2525{digits}"):
                found[spelled.encode()] = bytes([code])
            found[f"&#x{digits};".encode()] = bytes([code])
        found[f"&#{code:02};".encode()] = found[f"&#{code:03};".encode()] = bytes([code])
    return found


_DECODED = _escapes()


def _unescaped(data: bytes) -> bytes:
    if b"\\u00" not in data and b"\\x" not in data and b"%" not in data and b"&#" not in data:
        return data
    pieces = _ESCAPE.split(data)
    pieces[1::2] = map(_DECODED.__getitem__, pieces[1::2])
    return b"".join(pieces)


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────────

# Compare names in lower case and without these bytes. Backslashes are dropped, because JSON inside JSON has escaped
# quotes.
_DROPPED = b"_-.\\\xef\xbb\xbf\xff\xfe"
_FOLDED = bytes.maketrans(
    bytes(range(65, 91)) + b"'\t\r ",
    bytes(range(97, 123)) + b'"\n\n\n',
)
# Forms of a name with a value: name: value, "name": value, name=value, <name>, </name>, <name attribute="…">.
_ANY_VALUE = r"""(?:s|value)?(?:["\])\n]{0,64}+[:=>]|/?\n{1,8}+[a-z0-9:]{1,64}+\n{0,8}+=)"""
_FIELD_VALUE = r"""[a-z0-9\[\]]{0,64}+=[^"\n=\0]"""
_BEFORE_NAME = r"""["&;?<{,\n\[\]:/]"""


def _after(words: str, root: str) -> str:
    """Return a look-behind pattern: one of the words must precede the root, with or without a space between them."""
    found = [f"(?<={word}{space}{root})" for word in words.split() for space in ("", r"\n")]
    return "(?:" + "|".join(found) + ")"


def _whole(root: str, plural: str = "") -> str:
    """Return the pattern that matches a root only if it is the whole name: ``token``, but not ``next_page_token``."""
    return rf"""(?<={_BEFORE_NAME}{root}){plural}(?:["\])\n]{{0,64}}+[:=>]|\n{{1,8}}+[a-z0-9:]{{1,64}}+\n{{0,8}}+=")"""


_IN_QUERY = r"""(?<=[&;?]{root})=[^"\n=\0]"""
_TOKENS = "access refresh id session auth bearer security api bot github gitlab"
_KEYS = "access private signing client api encryption"
# For each root (a word in names of secret fields), the pattern that must follow it. Roots are fixed text, because a
# search for fixed text is fast. A name can have other words before the root, as in openaiApiKey.
_FOLLOWING = {
    "secret": rf"(?:\n?key)?{_ANY_VALUE}|{_FIELD_VALUE}",
    "pass": rf"(?:word|wd|phrase|code)(?:\n?confirm(?:ation)?|\n?again|[0-9])?(?:{_ANY_VALUE}|{_FIELD_VALUE})",
    "token": rf"{_after(_TOKENS, 'token')}{_ANY_VALUE}|{_whole('token')}|{_FIELD_VALUE}",
    "key": rf"{_after(_KEYS, 'key')}(?:{_ANY_VALUE}|{_FIELD_VALUE})|{_IN_QUERY.format(root='key')}",
    "auth": rf"orization(?:\n?code)?{_ANY_VALUE}|{_whole('auth')}|{_FIELD_VALUE}",
    "assertion": rf"{_after('client', 'assertion')}{_ANY_VALUE}|{_whole('assertion')}",
    "code": rf"{_after('device user', 'code')}{_ANY_VALUE}|\n?verifier{_ANY_VALUE}|{_IN_QUERY.format(root='code')}",
    "jwt": _whole("jwt"),
    "pwd": _whole("pwd"),
    "grant": _whole("grant", r"\n?type"),
    "credential": rf"{_whole('credential', 's?')}|{_FIELD_VALUE}",
    "signature": _FIELD_VALUE,
    "sig": _IN_QUERY.format(root="sig"),
    "xamz": rf"(?<=[&;?]xamz){_FIELD_VALUE}",
    "xgoog": rf"(?<=[&;?]xgoog){_FIELD_VALUE}",
    "saml": rf"\n?response{_ANY_VALUE}",
}
_BEARER = re.compile(rb"bearer\n[a-z0-9+/~]{20}")
_NAMES = [(root.encode(), re.compile(f"{root}(?:{rest})".encode())) for root, rest in _FOLLOWING.items()]
_NAME = (
    r"[a-z0-9\[]{0,32}?(?:secret(?:~key)?|pass(?:word|wd|phrase|code)"
    f"|(?:{'|'.join(_TOKENS.split())})~token|(?:{'|'.join(_KEYS.split())})~key|authorization|client~assertion"
    "|device~code|code~verifier|saml~response)|token|jwt|assertion|grant~type|pwd|credentials?|auth|user~code"
).replace("~", r"\n?")
# A secret's name can itself be a value: name="user[password]" in multipart and XML; <name>password</name>;
# {"name": "client_secret", "value": …}
_PAIRS = [
    (label, re.compile(label + rf"""(?:["\n]{{0,8}}+[:=]\n{{0,8}}+"?|>\n{{0,8}}+)(?:{_NAME})\]?["\n;<]""".encode()))
    for label in (b"name", b"key", b"field", b"id")
]
# Every match of a name contains one of these characters. At most _BEFORE bytes of the match precede the character, and
# at most _AFTER bytes of the match begin with it.
_ASSIGNMENTS = (b":", b"=", b">")
_BEFORE, _AFTER = 200, 80
_NAME_CARRY = 512

# ── shapes ───────────────────────────────────────────────────────────────────────────────────────────────────────────

_SHAPES_OF = {
    found.prefix.encode(): f"{found.pattern}[{found.alphabet}]{{{found.in_body}}}".encode() for found in KEY_FORMATS
}
# Search for API keys only in a body with a run of at least 13 letters, digits, dashes or underscores. Every API key
# contains such a run; most prose does not.
_RUNS = bytes(0x61 if chr(code).isascii() and (chr(code).isalnum() or code in b"_-") else 0x20 for code in range(256))
_RUN = b"a" * 13
# The prefix of an API key begins a word, or follows an escape sequence such as `\n`.
_SHAPES = [
    (
        prefix,
        re.compile(
            prefix
            + rb"(?:(?<![A-Za-z0-9][\x00-\xff]{%d})|(?<=\\[nrtbf][\x00-\xff]{%d}))" % (len(prefix), len(prefix))
            + rest
        ),
    )
    for prefix, rest in _SHAPES_OF.items()
]
_OTHER_SHAPES = [
    # Require that no token character precedes the prefix, so that matches do not overlap and the search stays linear.
    (
        b"eyJ",
        re.compile(
            rb"eyJ(?:(?<![A-Za-z0-9_\-][\x00-\xff]{3})|(?<=\\[nrtbf][\x00-\xff]{3}))"
            rb"[A-Za-z0-9_\-]{6,2048}+\.[A-Za-z0-9_\-]{4}"
        ),
    ),
    (b"PRIVATE KEY", re.compile(rb"-----BEGIN [A-Z0-9 ]{0,32}PRIVATE KEY")),
]
_MARKS = (b"-", b"_")
_ONE_MARK = bytes.maketrans(b"_", b"-")
_MOST_MARKS = 4096
# For each prefix that ends in a dash or an underscore, its last word (`pat` for `github_pat_`); empty for the others.
_TAIL_OF = [re.split(rb"[-_]", prefix)[-2] if prefix.endswith(_MARKS) else b"" for prefix in _SHAPES_OF]
_TAILS = tuple(tail for tail in _TAIL_OF if tail)
_LONGEST_TAIL = max(map(len, _TAILS))
_SHAPE_CARRY = 2200
_LOOK_BACK = 16

# ── opaque bodies ────────────────────────────────────────────────────────────────────────────────────────────────────

_CREDENTIAL_LIKE = re.compile(
    r"(?i)(?:^|[/_\-])(?:sessions?|accounts?|grants?|pair|pairing|enroll|enrollment)(?:[/_\-.:;?]|$)"
)
_READABLE = re.compile(
    r"text/|multipart/|application/(?:.*[+\-./])?(?:json|xml|yaml|form-urlencoded|ndjson|jsonl|toml)\b"
)


class CredentialScan:
    """The scan of one decoded body, fed in chunks of any size.

    Args:
        content_type: the header's value, or None.
        strict: whether a body of a binary type counts as a credential.

    Attributes:
        found: whether the body holds a credential or cannot be read.
        over: whether the scan has ended, so that it ignores further bytes.
    """

    def __init__(self, content_type: str | None, *, strict: bool = False) -> None:
        self.found = False
        self.over = False
        media_type = (content_type or "").partition(";")[0].strip().lower()
        self._opaque = strict and _READABLE.match(media_type) is None
        self._sniff = strict and not media_type
        self._held = b""
        self._text = b""
        # Begin with an ampersand, because the patterns expect one before each field of a form.
        self._names = b"&"

    def feed(self, data: bytes) -> None:
        """Scan the next decoded bytes."""
        for start in range(0, len(data), _SLICE):
            if self.over:
                return
            self._feed(data[start : start + _SLICE])

    def finish(self) -> None:
        """End the scan: the body is complete, or no more of it will be received."""
        self.end_message()
        self.over = True
        self._text = self._names = b""

    def end_message(self) -> None:
        """Scan the bytes that are held back, because no escape sequence continues in the next message."""
        if not self.over and self._held:
            held, self._held = self._held, b""
            self._look(held)

    def unreadable(self) -> None:
        """Treat the body as a credential, because it cannot be decoded."""
        self.found = self.over = True

    def _feed(self, data: bytes) -> None:
        if self._opaque and self._is_opaque(data):
            self.unreadable()
            return
        if b"\0" in data:  # Remove NUL bytes, so that the scan also finds names in UTF-16 and UTF-32.
            data = data.replace(b"\0", b"")
        data = self._held + data
        # Hold back an escape sequence that may continue in the next chunk.
        marks = [at for mark in _ESCAPE_BEGINS if (at := data.find(mark, max(len(data) - _LONGEST_ESCAPE, 0))) >= 0]
        cut = min(marks, default=len(data))
        data, self._held = data[:cut], data[cut:]
        self._look(data)

    def _is_opaque(self, data: bytes) -> bool:
        if not self._sniff:
            return True
        leading = data.lstrip(b" \t\r\n\xef\xbb\xbf\xff\xfe\0")
        if not leading:
            return False
        self._opaque = False
        return leading[:1] not in b"{[<"

    def _look(self, data: bytes) -> None:
        data = _unescaped(data)
        text = self._text + data
        names = self._names + data.translate(_FOLDED, _DROPPED)
        # The text begins with bytes kept from previous chunks. If these bytes have the maximum length, their first
        # _LOOK_BACK bytes are only context for look-behind: the previous search covered the matches that begin there.
        start = _LOOK_BACK if len(self._text) == _SHAPE_CARRY else 0
        self.found = _has_shape(text, start) or _has_name(names)
        self.over = self.found
        self._text = text[-_SHAPE_CARRY:]
        self._names = names[-_NAME_CARRY:]


def _near_assignments(text: bytes) -> bytes:
    """Return the parts of a text in which a name can match. If these are most of the text, return all of it."""
    if sum(map(text.count, _ASSIGNMENTS)) * (_BEFORE + _AFTER) * 2 > len(text):
        return text
    marks = []
    for sign in _ASSIGNMENTS:
        at = text.find(sign)
        while at >= 0:
            marks.append(at)
            at = text.find(sign, at + 1)
    # Join the parts with NUL bytes, so that no name matches across two parts.
    return b"\0".join(text[max(at - _BEFORE, 0) : at + _AFTER] for at in marks)


def _has_name(text: bytes) -> bool:
    if b"bearer" in text and _BEARER.search(text) is not None:
        return True
    text = _near_assignments(text)
    present = [name for root, name in _NAMES if root in text]
    return any(name.search(text) is not None for name in present) or (
        bool(present) and any(label in text and pair.search(text) is not None for label, pair in _PAIRS)
    )


def _has_shape(text: bytes, start: int) -> bool:
    shapes = _SHAPES + _OTHER_SHAPES if _RUN in text.translate(_RUNS) else _OTHER_SHAPES
    if shapes is not _OTHER_SHAPES and sum(map(text.count, _MARKS)) <= _MOST_MARKS:
        # Collect the words before a dash or an underscore in one pass, because a search for each prefix is slower.
        before = text.translate(_ONE_MARK).split(b"-")
        tails = {word[-_LONGEST_TAIL:] for word in before if word.endswith(_TAILS)}
        shapes = _OTHER_SHAPES + [
            shape
            for shape, tail in zip(_SHAPES, _TAIL_OF, strict=True)
            if not tail or any(word.endswith(tail) for word in tails)
        ]
    return any(prefix in text and shape.search(text, start) is not None for prefix, shape in shapes)


def scan_for(host: str, path: str, content_type: str | None) -> CredentialScan | None:
    """Return a scan for a body, or None at the path of a model API. Do not call this for a token endpoint."""
    if is_model_api(host, path):
        return None
    return CredentialScan(content_type, strict=_CREDENTIAL_LIKE.search(path) is not None)


def are_credentials(host: str, path: str, bodies: Iterable[tuple[str | None, bytes]]) -> bool:
    """Return whether these bodies, given as ``(content type, bytes)``, must not be recorded."""
    if is_token_endpoint(host, path):
        return True
    for content_type, data in bodies:
        scan = scan_for(host, path, content_type)
        if scan is not None:
            scan.feed(data)
            scan.finish()
            if scan.found:
                return True
    return False
