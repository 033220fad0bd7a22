"""Detection of bodies that are credentials: forms and JSON objects with fields such as ``client_secret``.

`redaction.is_token_endpoint` recognises such bodies by host and path. This module finds them at any other path, while
they stream and wherever chunks are cut. It skips bodies of the model APIs that the proxy parses: those must be kept
exactly.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from openclaw_egress.llm.registry import api_of
from openclaw_egress.recording.redaction import is_secret_field, is_token_endpoint
from openclaw_egress.wire.json_members import TopLevelMembers

_JSON_NAMES = frozenset(
    """client_secret clientSecret refresh_token refreshToken access_token accessToken id_token idToken grant_type
    grantType password passwd client_assertion device_code deviceCode code_verifier codeVerifier api_key apiKey apikey
    secret secret_key secretKey secret_access_key secretAccessKey SecretAccessKey session_token sessionToken
    SessionToken private_key privateKey client_key token authToken auth_token jwt assertion credentials
    Credentials""".split()  # noqa: SIM905
)
# Names that are credentials at any depth, whatever their case, as letters and digits alone.
_STRONG_NAMES = frozenset(
    """clientsecret refreshtoken accesstoken idtoken sessiontoken authtoken clientassertion secretaccesskey secretkey
    privatekey devicecode codeverifier apikey password passwd""".split()  # noqa: SIM905
)
_PART_NAMES = _STRONG_NAMES | {"granttype", "token", "secret", "assertion", "jwt", "pwd", "samlresponse"}
_MEDIA_TYPES = frozenset({"", "application/x-www-form-urlencoded", "application/json", "text/json", "text/plain"})
# Streams of lines are journalled as they come, and the rest of these is no form.
_NEVER = frozenset({"text/event-stream", "application/x-ndjson", "application/jsonl", "text/html"})
_FORM_BEGINS = re.compile(rb"[A-Za-z0-9_.\-%\[\]]{1,64}=")
_MEMBER = re.compile(rb'"((?:[^"\\]|\\.){1,64}+)"[ \t\r\n]{0,64}+:[ \t\r\n]{0,64}+"')
_PART = re.compile(rb'(?i)[; \t]name="?([^";\r\n]{1,256})["\r\n;]')
_OVERLAP = 512
_FIELD = re.compile(rb"[&;]([^&;=]{1,256})=")
_MAX_NAME = 300


class CredentialScan:
    """The scan of one decoded body, fed in chunks of any size.

    Attributes:
        found: the body holds a field that names a credential.
        over: nothing more can be found.
    """

    def __init__(self, content_type: str | None) -> None:
        self.found = False
        media_type = (content_type or "").partition(";")[0].strip().lower()
        self._sniff = media_type not in _MEDIA_TYPES and not media_type.endswith("+json")
        self.over = media_type in _NEVER
        self._parts = media_type.startswith("multipart/")
        self._json: TopLevelMembers | None = None
        self._begun = False
        self._rest = b"&"

    def feed(self, data: bytes) -> None:
        """Scan the next decoded bytes."""
        if self.over or not data:
            return
        data = data.replace(b"\0", b"")  # UTF-16 too
        if not self._begun:
            leading = data.lstrip(b" \t\r\n\xef\xbb\xbf\xff\xfe")
            if not leading:
                return
            self._begun = True
            if leading[:1] in (b"{", b"["):
                self._json = TopLevelMembers(_JSON_NAMES)
                data, self._rest = leading, b""
            elif leading[:2] == b"--" or self._parts:
                self._parts, self._rest = True, b""
            elif self._sniff and _FORM_BEGINS.match(leading) is None:
                self.over = True
                return
        if self._json is not None:
            self._json.feed(data)
            self.found = bool(self._json.begun) or self._names(data, _MEMBER, _STRONG_NAMES)
            self.over = self.found
        elif self._parts:
            self.found = self.over = self._names(data, _PART, _PART_NAMES)
        else:
            self._fields(data)

    def finish(self) -> None:
        """End the scan: the body is complete, or no more of it will be received."""
        self.over = True

    def _names(self, data: bytes, shape: re.Pattern[bytes], names: frozenset[str]) -> bool:
        text = self._rest + data
        self._rest = text[-_OVERLAP:]
        return any(_squeezed(name) in names for name in shape.findall(text))

    def _fields(self, data: bytes) -> None:
        text = self._rest + data
        self.found = any(is_secret_field(name.decode("latin-1")) for name in _FIELD.findall(text))
        self.over = self.found
        rest = text[max(text.rfind(b"&"), text.rfind(b";"), 0) :]
        # Inside a value, or past the longest possible name: the next field begins after the next separator.
        self._rest = b"=" if b"=" in rest or len(rest) > _MAX_NAME else rest


def _squeezed(name: bytes) -> str:
    text = name.decode("latin-1")
    if "\\" in text:
        try:
            text = str(json.loads(f'"{text}"', strict=False))
        except ValueError:
            return ""
    return re.sub(r"[^a-z0-9]", "", text.lower())


def scan_for(path: str, content_type: str | None) -> CredentialScan | None:
    """Return a scan for a body at a path that is not a token endpoint, or ``None`` at the path of a model API."""
    return None if api_of(path) is not None else CredentialScan(content_type)


def are_credentials(host: str, path: str, bodies: Iterable[tuple[str | None, bytes]]) -> bool:
    """Return whether these bodies, given as ``(content type, bytes)``, must not be kept."""
    if is_token_endpoint(host, path):
        return True
    for content_type, data in bodies:
        scan = scan_for(path, content_type)
        if scan is not None:
            scan.feed(data)
            if scan.found:
                return True
    return False
