"""Masking of known secrets in recorded bytes: each becomes ``[masked:RULE:FINGERPRINT]``. Pure: bytes in, bytes out.

A rule matches the key format of an issuer (`RULES`), a PEM private key, an AWS secret key that follows its name, or an
operator's own pattern (`policy.mask_patterns`). The fingerprint is the beginning of the secret's SHA-256. It identifies
a key without revealing it, because keys are random and long.

`Masker` takes a body in pieces of any size, and its result does not depend on where the pieces end. It holds back the
last bytes as long as they can be the beginning of a secret. The rules apply in this order:

1. A PEM private key ends at its last line, at the first byte that cannot belong to it, or after `MAX_PEM` bytes.
2. Other secrets are inside a token: a run of the bytes in `_TOKEN`. A token without `_SHORTEST` consecutive bytes of
   `_RUN` is skipped. This test comes first, because it is cheap and skips most prose.
3. In a token of more than `LONG_TOKEN` bytes, such as an image in Base64, only secrets that begin in the first `_HEAD`
   bytes are masked.
"""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Sequence
from typing import Any, NamedTuple

from openclaw_egress.policy.mask_patterns import SHORTEST, MaskPattern

FINGERPRINT_DIGITS = 12
LONG_TOKEN = 8 * 1024
MAX_PEM = 16 * 1024
"""Longest PEM private key in bytes. A 16,384-bit RSA key has 12,700 bytes."""
MAX_TOKEN = 16 * 1024
"""Maximum number of bytes from the start of a token to the end of a secret in it."""
MAX_HELD = LONG_TOKEN + MAX_PEM
"""Maximum number of bytes held back in addition to the newest piece: a token, and a PEM private key after it."""


class Rule(NamedTuple):
    """One key format.

    Attributes:
        name: the name in the replacement. It must not contain a word that redaction treats as a credential's name.
        heads: the possible first two bytes, separated by spaces. They select the rules to try.
        pattern: the whole format. If it has a group, the group is the secret, otherwise the whole match.
        dashes: whether the key may contain ``-`` or ``_``. If so, it does not begin after one of these.
    """

    name: str
    heads: str
    pattern: str
    dashes: bool = False


_URL_SAFE = r"[A-Za-z0-9_\-]"
_WORD = "[A-Za-z0-9]"

# If two formats have the same beginning, the more specific one comes first.
RULES = (
    Rule("anthropic", "sk", f"sk-ant-{_URL_SAFE}{{24,256}}", dashes=True),
    Rule("openrouter", "sk", f"sk-or-{_URL_SAFE}{{24,256}}", dashes=True),
    Rule("openai", "sk", f"sk-(?:proj|svcacct|admin|None)-{_URL_SAFE}{{20,256}}", dashes=True),
    # Older keys of OpenAI, and keys of DeepSeek, Moonshot, LiteLLM and others. CSS classes do not match, because their
    # words are shorter.
    Rule(
        "sk",
        "sk",
        f"sk-(?={_URL_SAFE}{{0,64}}[0-9])(?={_URL_SAFE}{{0,64}}?{_WORD}{{16}}){_URL_SAFE}{{20,256}}",
        dashes=True,
    ),
    Rule("google", "AI", f"AIza{_URL_SAFE}{{35,48}}", dashes=True),
    Rule("google-access", "ya", r"ya29\.[A-Za-z0-9_\-.]{20,2048}", dashes=True),
    Rule("google-access", "GO", f"GOCSPX-{_URL_SAFE}{{28,64}}", dashes=True),
    Rule("google-access", "1/", f"1//0{_URL_SAFE}{{40,256}}", dashes=True),
    Rule("xai", "xa", f"xai-{_WORD}{{60,128}}"),
    Rule("groq", "gs", f"gsk_{_WORD}{{40,128}}"),
    Rule("huggingface", "hf", f"hf_{_WORD}{{30,64}}"),
    Rule("huggingface", "ap", f"api_org_{_WORD}{{30,64}}"),
    Rule("perplexity", "pp", f"pplx-{_WORD}{{40,128}}"),
    Rule("replicate", "r8", f"r8_{_WORD}{{37,64}}"),
    Rule("nvidia", "nv", f"nvapi-{_URL_SAFE}{{60,128}}", dashes=True),
    Rule("cerebras", "cs", f"csk-{_WORD}{{40,128}}"),
    Rule("together", "tg", f"tgp_v1_{_URL_SAFE}{{40,128}}"),
    Rule("langsmith", "ls", "lsv2_(?:pt|sk)_[0-9a-f]{32}_[0-9a-f]{10}"),
    Rule("tavily", "tv", f"tvly-(?:dev-|prod-)?{_WORD}{{30,128}}"),
    Rule("github", "gh", "gh[pousr]_[A-Za-z0-9_]{36,1024}"),
    Rule("github", "gi", "github_pat_[A-Za-z0-9_]{36,255}"),
    Rule(
        "gitlab",
        "gl",
        r"gl(?:pat|dt|rt|rtr|cbt|ptt|ft|imt|agent|soat|ffct|oas)-[A-Za-z0-9_\-.]{20,300}",
        dashes=True,
    ),
    Rule("slack", "xo", r"xox[abeoprs](?:\.xox[bp])?-(?=[A-Za-z0-9\-]{0,64}[0-9])[A-Za-z0-9\-]{20,256}", dashes=True),
    Rule("slack", "xa", r"xapp-(?=[A-Za-z0-9\-]{0,64}[0-9])[A-Za-z0-9\-]{24,256}", dashes=True),
    Rule(
        "slack-hook",
        "ho",
        rf"hooks\.slack\.com/(?:services|workflows)/({_WORD}{{8,16}}/{_WORD}{{8,16}}/[A-Za-z0-9/]{{16,64}})",
    ),
    Rule("telegram", "AA", rf"(?<=[0-9]{{8}}:)AA{_URL_SAFE}{{33}}"),
    Rule(
        "discord",
        " ".join(first + second for first in "MNO" for second in string.ascii_letters + string.digits),
        rf"{_URL_SAFE}{{24,26}}\.{_URL_SAFE}{{6}}\.{_URL_SAFE}{{27,40}}",
        dashes=True,
    ),
    Rule("aws-access", "AK AS AB AC", f"A(?:KIA|SIA|BIA|CCA)[A-Z0-9]{{16}}(?!{_WORD})"),
    Rule("azure", "Ac Sh", "(?:Account|SharedAccess)Key=([A-Za-z0-9+/]{40,88}={1,2})"),
    Rule("stripe", "sk rk", f"[sr]k_live_{_WORD}{{20,255}}"),
    Rule("stripe", "wh", "whsec_[A-Za-z0-9+/]{32,88}={0,2}"),
    Rule("sendgrid", "SG", rf"SG\.{_URL_SAFE}{{20,24}}\.{_URL_SAFE}{{39,50}}", dashes=True),
    Rule("twilio", "AC SK", f"(?:AC|SK)[0-9a-f]{{32}}(?!{_WORD})"),
    Rule("npm", "np", f"npm_{_WORD}{{36,255}}"),
    Rule("pypi", "py", f"pypi-Ag{_URL_SAFE}{{50,1024}}"),
    Rule("digitalocean", "do", "do[opr]_v1_[0-9a-f]{64}"),
    Rule("shopify", "sh", "shp(?:at|ca|pa|ss)_[0-9A-Fa-f]{32}"),
    Rule("vault", "hv", rf"hv[bs]\.{_URL_SAFE}{{24,512}}"),
    Rule("databricks", "da", f"dapi[0-9a-f]{{32}}(?:-[0-9]{{1,2}})?(?!{_WORD})"),
    Rule("grafana", "gl", f"glsa_{_WORD}{{32}}_[0-9A-Fa-f]{{8}}"),
    Rule("linear", "li", f"lin_api_{_WORD}{{40,64}}"),
    Rule("notion", "nt", f"ntn_{_WORD}{{40,64}}"),
    Rule("postman", "PM", "PMAK-[0-9a-f]{24}-[0-9a-f]{34}"),
    Rule("age", "AG", "AGE-SECRET-KEY-1[A-Z0-9]{58}"),
    Rule(
        "web-jwt",
        "ey",
        rf"eyJ{_URL_SAFE}{{8,4096}}\.{_URL_SAFE}{{8,8192}}(?:\.{_URL_SAFE}{{0,4096}}){{0,3}}",
        dashes=True,
    ),
)
"""The formats of keys, in the order in which they are tried."""

_ALNUM = (string.ascii_letters + string.digits).encode()
_RUN = _ALNUM + b"_-/+="
_TOKEN = _RUN + b".:"
_SHORTEST = 20
_HEAD = 512
_CONTEXT = 128
"""Number of previous bytes to keep, because a match can depend on them: an AWS secret key must follow its name."""


def _map_of(members: bytes) -> bytes:
    return bytes(0x61 if code in members else 0x20 for code in range(256))


_RUN_MAP, _TOKEN_MAP, _WORD_MAP = _map_of(_RUN), _map_of(_TOKEN), _map_of(_ALNUM)
_LONG_RUN = b"a" * _SHORTEST


type _Compiled = tuple[str, re.Pattern[bytes], bool]


def _by_head() -> dict[bytes, list[_Compiled]]:
    found: dict[bytes, list[_Compiled]] = {}
    for rule in RULES:
        compiled = re.compile(rule.pattern.encode())
        for head in rule.heads.split():
            found.setdefault(head.encode(), []).append((rule.name, compiled, rule.dashes))
    return found


_BY_HEAD = _by_head()
_AWS_SECRET = re.compile(
    rb"(?i:secret_?(?:access_?)?key)(?:\\?[\"'])?[\s:=>,(\\\"']{1,12}([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])"
)

_BEGIN = b"-----BEGIN "
_PEM_BYTES = _ALNUM + b"+/=\r\n\t\\ "
_PEM_BEGIN = re.compile(rb"-----BEGIN (?:[A-Z0-9]{1,16} ){0,4}PRIVATE KEY(?: BLOCK)?-----")
# A line break can be escaped, and the next line can be indented, and numbered as in the output of `cat -n`.
_PEM_LINE = rb"(?:\r|\n|\\+[nr])[ \t]{0,64}(?:[0-9]{1,6}(?:\t|\\+t|\xe2\x86\x92|\\+u2192|:|\|) {0,4})?"
_PEM_HEADERS = rb"(?:(?:%b){1,4}[A-Za-z][A-Za-z\-]{1,31}: [^\r\n\\\"]{0,128}){0,4}" % _PEM_LINE
_PEM_REST = re.compile(
    _PEM_HEADERS
    + rb"(?P<body>(?:%b|[A-Za-z0-9+/=]++|[ \t]{1,4}(?=[A-Za-z0-9+/=]{40}|(?:[A-Za-z0-9+/=]{1,100} ?)?-----END))*+)"
    % _PEM_LINE
    + rb"(?P<end>-----END [A-Z0-9 ]{0,64}-----)?"
)
_PEM_SPACE = re.compile(_PEM_LINE + rb"|[ \t]")
_PEM_UNDECIDED = 256
"""The end of a key can depend on this many bytes after its body: a line number, a header, or the END line."""
_PEM_SHORTEST = 40


class _Span(NamedTuple):
    start: int
    end: int
    rule: str
    fingerprint: str


def fingerprint(secret: bytes) -> str:
    """Return the first 12 hex digits of a secret's SHA-256."""
    return hashlib.sha256(secret).hexdigest()[:FINGERPRINT_DIGITS]


class Masker:
    """The masking of one body or message, fed in pieces of any size.

    Args:
        own: the operator's patterns. They apply in addition to the rules of this module.

    Attributes:
        count: number of masked secrets so far.
    """

    def __init__(self, own: Sequence[MaskPattern] = ()) -> None:
        self.count = 0
        self._own = own
        self._reach = max((pattern.longest for pattern in own), default=0)
        self._before = b""
        self._held = b""
        self._inside_long = False
        """Whether the next bytes continue a token of more than `LONG_TOKEN` bytes."""

    @property
    def held(self) -> bytes:
        """Return the bytes that are held back, because they can be the beginning of a secret."""
        return self._held

    def feed(self, data: bytes) -> bytes:
        """Process the next bytes. Return the bytes that need not be held back, with secrets masked."""
        if self._held.startswith(_BEGIN) and len(self._held) < MAX_PEM and not data.translate(None, _PEM_BYTES):
            # These bytes cannot end the key. Searching again for each small piece would take quadratic time.
            self._held += data
            return b""
        return self._settle(data, final=False) if data else b""

    def finish(self) -> bytes:
        """Return the bytes that are held back, with secrets masked. Call this at the end of the body or message."""
        rest = self._settle(b"", final=True) if self._held else b""
        self._before, self._inside_long = b"", False
        return rest

    def _settle(self, data: bytes, *, final: bool) -> bytes:
        text = b"".join((self._before, self._held, data))
        start = low = len(self._before)
        end = len(text)
        # Hold back a possible beginning of a PEM key at the end of the text: it is not part of the token before it.
        margin = max(self._reach, _length_of_begin(text))
        if self._inside_long:
            low = _token_end(text, start)
            begin = text.find(_BEGIN, start, low + 1)
            low = low if begin < 0 else begin
        cut = end
        if not final:
            tokens = text[: -self._reach] if self._reach else text
            cut = max(min(max(len(tokens.rstrip(_TOKEN)), low), end - (margin if low == end else self._reach)), start)
        spans, cut = _pem_spans(text, low, cut, final=final)
        own = [span for pattern in self._own for span in _own_spans(text, start, pattern)]
        if not final:
            # Do not cut inside a match: hold the match back until the bytes after it are known.
            torn = [span.start for span in own if span.start < cut < span.end]
            if torn:
                first = min(torn)
                cut = first if first < low else max(len(text[:first].rstrip(_TOKEN)), low)
        self._inside_long = self._inside_long and (low == end or cut < low)
        long = not final and end - cut - margin > LONG_TOKEN and _token_end(text, cut) >= end - self._reach
        spans += _token_spans(text, low, cut, spans)
        if long:
            of_token = _in_token(text, cut, end)
            if not of_token or of_token[-1].end < end or end - cut >= MAX_TOKEN:
                spans += of_token
                cut = max([end - margin, *(span.end for span in of_token)])
                self._inside_long = True
        spans += [span for span in own if span.start < cut]
        cut = max([cut, *(span.end for span in spans)])
        self._before, self._held = text[max(cut - _CONTEXT, 0) : cut], text[cut:]
        return self._replaced(text, start, cut, spans) if spans else text[start:cut]

    def _replaced(self, text: bytes, at: int, cut: int, spans: list[_Span]) -> bytes:
        pieces = []
        for span in sorted(spans):
            if span.end <= at:
                continue
            pieces += [
                text[at : max(at, span.start)],
                b"[masked:%b:%b]" % (span.rule.encode(), span.fingerprint.encode()),
            ]
            self.count += 1
            at = span.end
        return b"".join((*pieces, text[at:cut]))


def mask(data: bytes, own: Sequence[MaskPattern] = ()) -> tuple[bytes, int]:
    """Return ``data``, which must be complete, with its secrets masked, and the number of masked secrets."""
    masker = Masker(own)
    return masker.feed(data) + masker.finish(), masker.count


def mask_text(text: str, own: Sequence[MaskPattern] = ()) -> str:
    """Return ``text``, which must be complete, with its secrets masked."""
    if len(text) < SHORTEST:
        return text
    data = text.encode("utf-8", "surrogatepass")
    if not own and _BEGIN not in data and _LONG_RUN not in data.translate(_RUN_MAP):
        return text
    found, count = mask(data, own)
    return found.decode("utf-8", "surrogatepass") if count else text


def mask_json(value: Any, own: Sequence[MaskPattern] = ()) -> tuple[Any, int]:
    """Return a JSON value with the secrets in its strings and names masked, and the number of masked secrets."""
    if isinstance(value, str):
        found, count = mask(value.encode("utf-8", "surrogatepass"), own)
        return (found.decode("utf-8", "surrogatepass") if count else value), count
    if isinstance(value, dict):
        pairs = [(mask_json(name, own), mask_json(member, own)) for name, member in value.items()]
        return {name[0]: member[0] for name, member in pairs}, sum(name[1] + member[1] for name, member in pairs)
    if isinstance(value, list | tuple):
        items = [mask_json(item, own) for item in value]
        return [item for item, _ in items], sum(count for _, count in items)
    return value, 0


def _length_of_begin(text: bytes) -> int:
    """Return how many bytes at the end of a text can be the beginning of `_BEGIN`."""
    return next((size for size in range(len(_BEGIN) - 1, 0, -1) if text.endswith(_BEGIN[:size])), 0)


def _token_end(text: bytes, start: int) -> int:
    """Return the end of the token that begins at ``start``."""
    return len(text) - len(text[start:].lstrip(_TOKEN))


def _pem_spans(text: bytes, low: int, cut: int, *, final: bool) -> tuple[list[_Span], int]:
    """Return the spans of PEM private keys in ``text[low:cut]``, and the position from which to hold bytes back."""
    spans: list[_Span] = []
    at = text.find(_BEGIN, low)
    while 0 <= at < cut:
        begin = _PEM_BEGIN.match(text, at)
        if begin is None:
            if not final and len(text) - at < _PEM_UNDECIDED:
                return spans, max(len(text[:at].rstrip(_TOKEN)), low)
            at = text.find(_BEGIN, at + 1)
            continue
        rest = _PEM_REST.match(text, begin.end(), at + MAX_PEM)
        ends = rest.end() if rest is not None else begin.end()
        open_ = rest is None or rest["end"] is None
        if not final and open_ and len(text) - ends < _PEM_UNDECIDED and len(text) < at + MAX_PEM:
            return spans, max(len(text[:at].rstrip(_TOKEN)), low)
        secret = _PEM_SPACE.sub(b"", rest["body"]) if rest is not None else b""
        if len(secret) >= _PEM_SHORTEST:
            spans.append(_Span(at, ends, "private-pem", fingerprint(secret)))
            low = ends
        at = text.find(_BEGIN, max(ends, at + 1))
    return spans, max(cut, *(span.end for span in spans)) if spans else cut


def _own_spans(text: bytes, start: int, pattern: MaskPattern) -> list[_Span]:
    return [
        _Span(found.start(), found.end(), pattern.name, fingerprint(found.group()))
        for found in pattern.compiled.finditer(text, start)
    ]


def _token_spans(text: bytes, low: int, cut: int, pem: list[_Span]) -> list[_Span]:
    """Return the spans of secrets in ``text[low:cut]``. Skip the spans in ``pem``, which are already masked as keys."""
    spans: list[_Span] = []
    tokens = b""
    for begin, end in zip([low, *(span.end for span in pem)], [*(span.start for span in pem), cut], strict=True):
        runs = text[begin:end].translate(_RUN_MAP) if begin or end != len(text) else text.translate(_RUN_MAP)
        at = runs.find(_LONG_RUN)
        if at < 0:
            continue
        tokens = text[begin:end].translate(_TOKEN_MAP)
        while at >= 0:
            first = tokens.rfind(b" ", 0, at) + 1
            last = tokens.find(b" ", at)
            last = len(tokens) if last < 0 else last
            spans += _in_token(text, begin + first, begin + last)
            at = runs.find(_LONG_RUN, last)
    return spans


def _in_token(text: bytes, start: int, end: int) -> list[_Span]:
    """Return the spans of secrets in the token ``text[start:end]``."""
    spans: list[_Span] = []
    limit = start + _HEAD if end - start > LONG_TOKEN else end
    end = min(end, start + MAX_TOKEN)
    words = text[start:limit].translate(_WORD_MAP)
    at = start + _escape_length(text, start)
    if text[max(start - 1, 0) : start].isalnum():
        # The token directly follows another secret, so its first word cannot begin a secret.
        at = start + words.find(b" ") + 1 if b" " in words else limit
    while at < limit:
        span = _key_at(text, at, end)
        if span is not None:
            spans.append(span)
        # Continue after the next byte that is not a letter or a digit, because a key can begin only there.
        mark = words.find(b" ", (span.end if span is not None else at) - start)
        at = limit if mark < 0 else start + mark + 1
    return spans or _aws_secret(text, start, end)


def _escape_length(text: bytes, start: int) -> int:
    r"""Return how many bytes from ``start`` on belong to an escape sequence that begins before (``\n``, ``%3D``)."""
    before, after = text[max(start - 1, 0) : start], text[start : start + 5]
    if before == b"\\":
        return 5 if after[:3] == b"u00" else 1
    return 2 if before == b"%" else 0


def _key_at(text: bytes, at: int, end: int) -> _Span | None:
    """Return the span of the secret that begins at ``text[at]``; None if none begins there."""
    for name, pattern, dashes in _BY_HEAD.get(text[at : at + 2], ()):
        if dashes and text[at - 1 : at] in (b"-", b"_"):
            continue
        found = pattern.match(text, at, end)
        if found is not None:
            group = pattern.groups
            return _Span(found.start(group), found.end(group), name, fingerprint(found[group]))
    return None


def _aws_secret(text: bytes, start: int, end: int) -> list[_Span]:
    """Return the span of an AWS secret key in a token of at least 40 bytes, if the name of such a key precedes it."""
    if not 40 <= end - start <= _CONTEXT:
        return []
    near = text[max(start - 64, 0) : end]
    if b"secret" not in near.lower():
        return []
    found = _AWS_SECRET.search(text, max(start - 64, 0), end)
    if found is None or found.start(1) < start:
        return []
    return [_Span(found.start(1), found.end(1), "aws-hidden", fingerprint(found[1]))]
