"""Redaction: converts text from traffic to valid UTF-8 without secrets.

All text is redacted here before it reaches the disk, a log or the destination. Pure functions; none raises on invalid
input. Secret headers and query parameters are recognised by name; API keys are recognised by format, wherever they
occur. If `masking` knows the format of a key, the replacement contains the key's fingerprint.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from urllib.parse import unquote_plus

from openclaw_egress.recording.key_formats import KEY_FORMATS
from openclaw_egress.recording.masking import mask_text

REDACTED = "[redacted]"
MAX_URL_BYTES = 8 * 1024
"""Maximum length of a URL in a record, so that no record exceeds the 64 KB of metadata that a default Loki accepts."""

_SECRET_WORDS = ("auth", "token", "secret", "key", "cookie", "credential", "signature", "password")
_SECRET_HEADER_WORDS = (*_SECRET_WORDS, "passwd", "passphrase", "pwd", "assertion", "jwt", "bearer")
_SECRET_HEADERS = frozenset({"sec-websocket-protocol"})  # Some providers let browsers send the API key in this header.
_KEY_HEADERS = ("authorization", "x-api-key", "api-key", "x-goog-api-key")

_SECRET_PARAMETERS = frozenset({"key", "sig", "code", "jwt", "pwd", "pass", "devicecode", "usercode", "samlresponse"})
# Include the names of body fields that `credentials` searches for, because they are secret in a URL too.
_SECRET_PARAMETER_WORDS = (
    "token", "secret", "password", "passwd", "passphrase", "passcode", "signature", "credential", "auth", "bearer",
    "assertion", "codeverifier", "apikey", "accesskey", "privatekey", "signingkey", "clientkey",
)  # fmt: skip
_NAME_IN_VALUE = re.compile(r"""(?:^|[?&;#])([^?&;#=]{1,256})=|["']([^"']{1,256})["']\s{0,16}:""")
_GRANT_FIELDS = frozenset({"grant_type", "device_code", "user_code", "code_verifier", "samlresponse"})
_SECRET_PARAMETER_PREFIXES = ("x-amz-", "x-goog-")

# Keys with a known format, and JSON web tokens.
_KEY_SHAPES = re.compile(
    r"\b(?:"
    + "|".join(
        f"{re.escape(found.prefix)}{found.pattern}[{found.alphabet}]{{{found.in_text},}}" for found in KEY_FORMATS
    )
    + r"|eyJ[A-Za-z0-9_\-]{6,}\.[A-Za-z0-9_\-]{4,}(?:\.[A-Za-z0-9_\-]*)?)"
)
_SCHEME_AND_CREDENTIAL = re.compile(r"(?i)\b(bearer|basic|digest|negotiate)(\s+)[^\s'\"\\,]+")
# `name: value` or `name=value`, as in logged headers. Line ends may be escaped, as in the `repr` of bytes.
_NAMED_SECRET = re.compile(
    r"(?i)([\w\-]{0,64}(?:" + "|".join(_SECRET_WORDS) + r"|sec-websocket-protocol)[\w\-]{0,64}"
    r"[\"']?[ \t]{0,8}[:=][ \t]{0,8}[\"']?)((?:(?!\\r|\\n|[\r\n\"'&]).)+)"
)
_URL_IN_TEXT = re.compile(r"[^\s'\"<>]*(?:[?#]|://|;[^;=\s]{1,64}=)[^\s'\"<>]*")
_PATH_PARAMETER = re.compile(r"([^;/=]{1,256})=([^;/]*)")
# Match up to the last @: a password can contain an unescaped @, and clients take the text after the last @ as the host.
_USERINFO = re.compile(r"(?<=://)[^/?#\s]*@")

# Words in a path segment, reduced to lower-case letters and digits, that always name credentials.
_CREDENTIAL_WORDS = frozenset(
    """oauth oauth2 oidc openid saml sso login signin logon signup authorize authorization authenticate authentication
    authn auth revoke revocation introspect introspection sts secret secrets password passwords passwd credential
    credentials jwt otp mfa totp passkey passkeys webauthn deviceauth apikey apikeys accesskey accesskeys accesstoken
    refreshtoken idtoken sessiontoken usercode devicecode register registration serviceaccount serviceaccounts
    """.split()  # noqa: SIM905
)
_TOKEN_WORDS = frozenset({"token", "tokens"})
_COUNTING_WORDS = frozenset({"count", "compute", "input", "output", "usage", "limit", "limits", "max"})
_KEY_WORDS = frozenset({"key", "keys"})
_KEY_OWNERS = frozenset({"api", "access", "admin", "service", "ephemeral", "signing", "private", "provisioning"})
_NAMED_BY_OPERATORS = frozenset({"deployments", "models", "model", "engines"})
_WORD = re.compile(r"[A-Z]+(?![a-z])\d*|[A-Z]?[a-z]+\d*|\d+")
# Include Realtime sessions, because the response to a new session contains an ephemeral key.
_TOKEN_PATHS = re.compile(r"/device/code$|/realtime/(?:transcription_)?sessions$")
_TOKEN_HOSTS = re.compile(
    r"^(?:auth|auth0|login|signin|accounts|sts|oauth2?|oidc|token|id|identity|sso|iam|iamcredentials|securetoken"
    r"|identitytoolkit|cognito-idp)\.|^sts[.-]|(?:^|\.)(?:auth0|okta|b2clogin|amazoncognito)\.com$"
)
_MAX_DECODINGS = 3


def clean_text(text: str) -> str:
    """Return ``text`` as valid Unicode. Bytes that were not UTF-8 (surrogate escapes) are escaped, as in ``\\xff``."""
    if text.isascii():
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # The text has a lone surrogate that does not represent a byte.
        return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def is_secret_header(name: str) -> bool:
    """Return whether a header's value must never be recorded."""
    lowered = name.lower()
    return lowered in _SECRET_HEADERS or any(word in lowered for word in _SECRET_HEADER_WORDS)


def redact_headers(items: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the headers in order, with secret values replaced, and with URLs and keys in other values redacted."""
    return [(clean_text(name), REDACTED if is_secret_header(name) else _redact_value(value)) for name, value in items]


def redact_url(url: str) -> str:
    """Return ``url`` without user name, password, secret parameters and keys, truncated to `MAX_URL_BYTES`."""
    head, mark, rest = clean_text(url).partition("?")
    if not mark:
        head, mark, rest = head.partition("#")
        rest = rest if not mark else _redact_query(rest)
    else:
        query, fragment_mark, fragment = rest.partition("#")
        rest = _redact_query(query) + fragment_mark + _redact_query(fragment)
    if ";" in head:
        first, _, parameters = head.partition(";")  # Redact path parameters, as in /callback;token=…
        head = first + ";" + _PATH_PARAMETER.sub(_redact_parameter, parameters)
    redacted = _USERINFO.sub(REDACTED + "@", head, count=1) + mark + rest
    return truncate_utf8(_KEY_SHAPES.sub(REDACTED, mask_text(redacted)), MAX_URL_BYTES)


def redact_text(text: str) -> str:
    """Return a log message without keys, and without secrets in URLs, header-like pairs or authorization values."""
    text = _NAMED_SECRET.sub(lambda match: match.group(1) + REDACTED, clean_text(text))
    return _redact_value(text)


def key_fingerprint(headers: Iterable[tuple[str, str]]) -> str | None:
    """Return the first 12 hex digits of the SHA-256 of the API key; None if no header contains a key.

    The hash does not include an authentication scheme such as ``Bearer``.
    """
    found = {name.lower(): value for name, value in headers if name.lower() in _KEY_HEADERS}
    for name in _KEY_HEADERS:
        if value := found.get(name, "").strip():
            scheme, space, credential = value.partition(" ")
            key = credential.strip() if name == "authorization" and space and scheme.isalpha() else value
            return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return None


def is_token_endpoint(host: str, path: str) -> bool:
    """Return whether bodies at this path are credentials (OAuth, logins, key management), which are never recorded.

    Recognise other spellings of a path: percent-encoding (also repeated), upper case, empty segments, parameters after
    ``;``, a trailing slash. Ignore names of models and deployments, because operators choose them.
    """
    clean = path.partition("?")[0]
    for _ in range(_MAX_DECODINGS):
        clean = unquote_plus(clean)
    segments = [segment.strip() for segment in re.split(r"[/\\]+", clean) if segment.strip(" .")]
    before = ""
    for segment in segments:
        # Check only the verb that Google puts after a model's name: models/NAME:countTokens.
        counted = segment.rpartition(":")[2] if before in _NAMED_BY_OPERATORS and ":" in segment else segment
        if (before not in _NAMED_BY_OPERATORS or ":" in segment) and _names_credentials(counted):
            return True
        before = segment.lower()
    return bool(_TOKEN_PATHS.search("/" + "/".join(segments).lower()) or _TOKEN_HOSTS.search(host.lower().rstrip(".")))


def _names_credentials(segment: str) -> bool:
    if segment.lower() in _KEY_WORDS:
        return True
    for part in re.split(r"[^A-Za-z0-9_.\-]+", segment):
        # Match camel case and plain words: getAccessToken, ACCESS_TOKEN, tOKEN.
        lowered = part.lower()
        found = {word.lower() for word in _WORD.findall(part)} | set(re.findall(r"[a-z]+\d*|\d+", lowered))
        if found & _CREDENTIAL_WORDS or re.sub(r"[^a-z0-9]", "", lowered) in _CREDENTIAL_WORDS:
            return True
        if found & _TOKEN_WORDS and not found & _COUNTING_WORDS:
            return True
        if (found & _KEY_WORDS and found & _KEY_OWNERS) or {"device", "code"} <= found or {"sign", "in"} <= found:
            return True
    return False


def is_secret_field(name: str) -> bool:
    """Return whether a form field or query parameter with this name is secret or occurs only in token requests."""
    return _is_secret_parameter(name) or unquote_plus(name).strip().lower() in _GRANT_FIELDS


def truncate_utf8(text: str, limit: int) -> str:
    """Return ``text`` within ``limit`` bytes of UTF-8, cut between characters and marked with an ellipsis."""
    if len(text) * 4 <= limit:
        return text
    data = text.encode("utf-8", "replace")
    if len(data) <= limit:
        return text
    return data[: limit - 3].decode("utf-8", "ignore") + "…"


def _redact_value(value: str) -> str:
    value = mask_text(clean_text(value))
    if any(mark in value for mark in ("?", "://", "#", ";")):
        value = _URL_IN_TEXT.sub(lambda match: redact_url(match.group()), value)
    return _KEY_SHAPES.sub(REDACTED, _SCHEME_AND_CREDENTIAL.sub(r"\1\2" + REDACTED, value))


def _redact_query(query: str) -> str:
    return "&".join(_redact_pair(pair) for pair in query.split("&"))


def _redact_parameter(found: re.Match[str]) -> str:
    return f"{found[1]}={REDACTED}" if _is_secret_parameter(found[1]) else found[0]


def _redact_pair(pair: str) -> str:
    name, equals, value = pair.partition("=")
    if not equals:
        return REDACTED if _hides_a_secret(pair) else pair
    if _is_secret_parameter(name):
        return f"{name}={REDACTED}"
    if ";" in value:  # Split at ";" as well, because some servers separate pairs with it.
        first, _, rest = value.partition(";")
        return f"{name}={first};{_redact_pair(rest)}"
    if _hides_a_secret(value):
        return f"{name}={REDACTED}"
    return pair


def _hides_a_secret(value: str) -> bool:
    """Return whether a value is itself a URL, a form or JSON that holds a secret. The value may be percent-encoded."""
    for _ in range(_MAX_DECODINGS):
        names = (form or quoted for form, quoted in _NAME_IN_VALUE.findall(value))
        if any(_is_secret_parameter(name) for name in names):
            return True
        if "%" not in value:
            return False
        value = unquote_plus(value)
    return False


def _is_secret_parameter(name: str) -> bool:
    for _ in range(2):  # Decode twice, as some servers do.
        name = unquote_plus(name)
    lowered = name.strip().lower()
    squeezed = lowered.replace("-", "").replace("_", "")
    return (
        squeezed in _SECRET_PARAMETERS
        or lowered.startswith(_SECRET_PARAMETER_PREFIXES)
        or any(word in squeezed for word in _SECRET_PARAMETER_WORDS)
    )
