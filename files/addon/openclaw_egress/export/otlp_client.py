"""The HTTP request of one push to the destination, and the interpretation of the response.

OTLP/HTTP defines the format of responses (https://opentelemetry.io/docs/specs/otlp/#otlphttp-response). Tests with Loki
also showed: success is 204, the body of an error is a ``google.rpc.Status``, and 429 has no ``Retry-After``.
`interpret` is pure; `Sender` does the I/O.
"""

from __future__ import annotations

import gzip
import json
import logging
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any
from urllib.parse import unquote

import urllib3
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.util.re import parse_env_headers

from openclaw_egress import __version__
from openclaw_egress.recording.otlp import CONTENT_TYPE
from openclaw_egress.recording.redaction import redact_text, redact_url, truncate_utf8

log = logging.getLogger("openclaw_egress.export")

DEFAULT_TIMEOUT_SECONDS = 10.0
MAX_RESPONSE_BYTES = 4 * 1024 * 1024
"""Maximum size of a response. An error can list every refused record; Loki sent more than 64 KB for 445 records."""
_MAX_MESSAGE_BYTES = 16 * 1024
MAX_RETRY_AFTER_SECONDS = 300.0


class Verdict(Enum):
    """The action that the exporter must take after a response."""

    ACCEPTED = "accepted"
    RETRY = "retry"
    """Retry later: a network problem, an overload, or an error of the destination."""
    REFUSED = "refused"
    """The destination will never accept one or more records of this push. It may have stored the others."""
    TOO_LARGE = "too large"
    MISCONFIGURED = "misconfigured"
    """The destination accepts no record until an operator changes a setting. The records are valid."""


class Cause(StrEnum):
    """Cause of a failed push that an operator can fix. Code compares causes; ``REMEDIES`` has the text for people."""

    UNKNOWN = "unknown"
    COMPRESSION = "compression"
    CONTENT_TYPE = "content_type"
    CHANGED_IN_TRANSIT = "changed_in_transit"
    STRUCTURED_METADATA = "structured_metadata"
    SCHEMA = "schema"
    REDIRECT = "redirect"
    CREDENTIALS_MISSING = "credentials_missing"
    CREDENTIALS_REFUSED = "credentials_refused"
    ENDPOINT = "endpoint"
    VARIABLES = "variables"
    CERTIFICATE = "certificate"
    CA_KEY_USAGE = "ca_key_usage"
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    EVERY_RECORD_REFUSED = "every_record_refused"
    CLOCK = "clock"


REMEDIES = {
    Cause.UNKNOWN: "",
    Cause.COMPRESSION: "set OTEL_EXPORTER_OTLP_LOGS_COMPRESSION to gzip or none",
    Cause.CONTENT_TYPE: "the endpoint does not accept protobuf: check the URL's path",
    Cause.CHANGED_IN_TRANSIT: "the data was changed in transit: check for a proxy in between",
    Cause.STRUCTURED_METADATA: "set allow_structured_metadata: true in Loki's limits_config",
    Cause.SCHEMA: "Loki needs schema v13 (tsdb) for OTLP",
    Cause.REDIRECT: "the endpoint redirects to {location}: set that URL",
    Cause.CREDENTIALS_MISSING: "the destination requires credentials: set OTEL_EXPORTER_OTLP_LOGS_HEADERS "
    "(authorization=…, x-scope-orgid=…)",
    Cause.CREDENTIALS_REFUSED: "the destination refuses these credentials: check OTEL_EXPORTER_OTLP_LOGS_HEADERS",
    Cause.ENDPOINT: "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT must be the complete URL, such as "
    "http://10.0.0.2:3100/otlp/v1/logs",
    Cause.VARIABLES: "check the variables OTEL_EXPORTER_OTLP_LOGS_*",
    Cause.CERTIFICATE: "set OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE to the destination's CA certificate",
    Cause.CA_KEY_USAGE: "the destination's CA certificate lacks keyUsage (keyCertSign), which RFC 5280 requires: "
    "reissue it",
    Cause.TIMEOUT: "check that the destination is running",
    Cause.UNREACHABLE: "check that the destination is running and reachable from this machine",
    Cause.EVERY_RECORD_REFUSED: "the destination refuses record after record: check its limits, and its URL in "
    "`egress status`",
    Cause.CLOCK: "check the clocks of this machine and the destination; lines with a future time wait, earlier lines "
    "are sent",
}
"""The text that tells an operator how to fix each cause."""


@dataclass(frozen=True, slots=True)
class PushResult:
    """The result of a push. ``message`` is for people: one line, without secrets."""

    verdict: Verdict
    message: str = ""
    cause: Cause = Cause.UNKNOWN
    location: str = ""
    """The URL of a redirect."""
    retry_after: float | None = None
    status: int | None = None
    """The HTTP status, if the push must be retried; ``None`` if there was no response."""
    delivered: bool = False
    """Whether the destination may have received a push that must be retried; False if no connection was made."""

    @property
    def remedy(self) -> str:
        """Return the text that tells an operator how to fix the cause; empty if the cause is unknown."""
        return REMEDIES[self.cause].format(location=self.location or "no location")


# Error messages (status 400 or 422) that are caused by a setting of the proxy or of Loki, not by a record.
_SETTINGS = (
    (re.compile(r"unsupported content encoding"), Cause.COMPRESSION),
    (re.compile(r"content type: .* is not supported"), Cause.CONTENT_TYPE),
    (re.compile(r"illegal wireType|cannot parse invalid wire-format|unexpected EOF"), Cause.CHANGED_IN_TRANSIT),
    (
        re.compile(r"structured metadata.*(?:disallowed|not allowed)|disallowed structured metadata"),
        Cause.STRUCTURED_METADATA,
    ),
    (re.compile(r"schema v13 is required"), Cause.SCHEMA),
)


def interpret(status: int, headers: Mapping[str, str], body: bytes) -> PushResult:
    """Interpret an HTTP response to a push.

    Args:
        status: the HTTP status code.
        headers: the response's headers, names in lower case.
        body: the response's body, possibly truncated.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if status in (200, 204):
        return _success(kind, body)
    message = f"HTTP {status}: {_error_message(kind, body)}".removesuffix(": ")
    if status == 413:
        return PushResult(Verdict.TOO_LARGE, message)
    if status in (408, 429) or status >= 500:
        return PushResult(
            Verdict.RETRY, message, retry_after=_seconds(headers.get("retry-after")), status=status, delivered=True
        )
    if status in (400, 422) and kind != "text/html":
        for pattern, cause in _SETTINGS:
            if pattern.search(message):
                return PushResult(Verdict.MISCONFIGURED, message, cause)
        return PushResult(Verdict.REFUSED, message)
    if 300 <= status < 400:
        target = redact_url(headers.get("location", ""))
        return PushResult(Verdict.MISCONFIGURED, message, Cause.REDIRECT, location=target)
    return PushResult(Verdict.MISCONFIGURED, message, _CAUSES.get(status, Cause.ENDPOINT))


_CAUSES = {401: Cause.CREDENTIALS_MISSING, 403: Cause.CREDENTIALS_REFUSED}


def _success(kind: str, body: bytes) -> PushResult:
    if not body:
        return PushResult(Verdict.ACCEPTED)
    try:
        if kind == "application/json":
            partial = json.loads(body).get("partialSuccess") or {}
            rejected, message = int(partial.get("rejectedLogRecords") or 0), str(partial.get("errorMessage") or "")
        elif kind in (CONTENT_TYPE, "application/octet-stream", ""):
            success = ExportLogsServiceResponse.FromString(body).partial_success
            rejected, message = success.rejected_log_records, success.error_message
        else:
            problem = f"HTTP 200 with {kind or 'no content type'}, which is not an OTLP response"
            return PushResult(Verdict.MISCONFIGURED, problem, Cause.ENDPOINT)
    except (DecodeError, ValueError, AttributeError, TypeError):
        return PushResult(Verdict.MISCONFIGURED, "HTTP 200 with a body that is not an OTLP response", Cause.ENDPOINT)
    if rejected:
        return PushResult(Verdict.REFUSED, f"{rejected} records rejected: {one_line(message)}")
    return PushResult(Verdict.ACCEPTED, one_line(message))


def _error_message(kind: str, body: bytes) -> str:
    if kind in (CONTENT_TYPE, "application/octet-stream"):
        try:
            return _said(Status.FromString(body).message)
        except DecodeError:
            if (message := _cut_message(body)) is not None:
                return _said(message)
    if kind == "application/json":
        try:
            said = json.loads(body)
            return one_line(str(said.get("message") or said.get("error") or said))
        except (ValueError, AttributeError):
            pass
    if kind == "text/html":
        title = re.search(rb"(?is)<title>(.{0,200}?)</title>", body)
        return "an HTML page" + (f" ({one_line(title.group(1).decode('utf-8', 'replace'))})" if title else "")
    return _said(body.decode("utf-8", "replace"))


def _said(message: str) -> str:
    return one_line(message[:_MAX_MESSAGE_BYTES])


def _cut_message(body: bytes) -> str | None:
    """Return the message (field 2) of a ``google.rpc.Status``, even if it is truncated; ``None`` for other data."""
    found = re.match(rb"(?s)(?:\x08[\x80-\xff]*[\x00-\x7f])?\x12[\x80-\xff]{0,4}[\x00-\x7f](.+)", body)
    return found.group(1).decode("utf-8", "replace") if found else None


def one_line(text: str) -> str:
    """Return untrusted text as one printable line of at most 1 KB, without secrets."""
    return truncate_utf8(redact_text(" ".join("".join(c if c.isprintable() else " " for c in text).split())), 1024)


def _seconds(retry_after: str | None) -> float | None:
    """Return ``Retry-After`` in seconds.

    Return None for a date, because a date is useful only with synchronised clocks.
    """
    if retry_after is None or not retry_after.strip().isdigit():
        return None
    return min(float(retry_after), MAX_RETRY_AFTER_SECONDS)


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """URL, headers and TLS settings of a destination. ``OTEL_EXPORTER_OTLP_LOGS_*`` overrides ``OTEL_EXPORTER_OTLP_*``.

    The timeout variable is in milliseconds, as OpenTelemetry specifies. A number below 1,000 is read as
    seconds, because some SDKs use that unit.
    """

    url: str
    """The URL without user name and password."""
    where: str
    """Host and port, for messages."""
    headers: dict[str, str]
    tls: dict[str, str | None]
    timeout: float
    """Timeout in seconds."""
    compression: str
    """The configured compression in lower case; empty if none is configured."""

    @classmethod
    def of(cls, url: str, environ: Mapping[str, str]) -> HttpSettings:
        """Return the settings for a URL. Convert a user name and password in the URL to an authorization header."""

        def setting(name: str) -> str:
            for prefix in ("OTEL_EXPORTER_OTLP_LOGS_", "OTEL_EXPORTER_OTLP_"):
                if value := environ.get(prefix + name, "").strip():
                    return value
            return ""

        parsed = urllib3.util.parse_url(url)
        return cls(
            url=parsed._replace(auth=None).url,
            where=f"{parsed.host}:{parsed.port or (443 if parsed.scheme == 'https' else 80)}",
            headers={
                "user-agent": f"openclaw-egress/{__version__}",
                **(urllib3.util.make_headers(basic_auth=unquote(parsed.auth)) if parsed.auth else {}),
                **parse_env_headers(setting("HEADERS"), liberal=True),
            },
            tls={
                "ca_certs": setting("CERTIFICATE") or None,
                "cert_file": setting("CLIENT_CERTIFICATE") or None,
                "key_file": setting("CLIENT_KEY") or None,
            },
            timeout=_timeout(setting("TIMEOUT")),
            compression=setting("COMPRESSION").lower(),
        )

    def pool(self, timeout: float) -> urllib3.PoolManager:
        """Return an HTTP client that never retries and uses no proxy. ``timeout`` is in seconds."""
        tls: dict[str, Any] = dict(self.tls)
        return urllib3.PoolManager(num_pools=1, maxsize=1, retries=False, timeout=urllib3.Timeout(total=timeout), **tls)


class Sender:
    """The HTTP client for one endpoint; see `HttpSettings`.

    It follows no redirects and ignores proxy variables, because the export of records must not depend on a proxy.
    """

    def __init__(self, endpoint: str, environ: Mapping[str, str]) -> None:
        settings = HttpSettings.of(endpoint, environ)
        self._url, self.where, self.timeout = settings.url, settings.where, settings.timeout
        if settings.compression not in ("", "none", "gzip"):
            log.warning(
                "OTEL_EXPORTER_OTLP_COMPRESSION=%s is not supported, so nothing is compressed: set gzip or none",
                settings.compression,
            )
        self._gzip = settings.compression == "gzip"
        self._headers = {
            **settings.headers,
            "content-type": CONTENT_TYPE,
            **({"content-encoding": "gzip"} if self._gzip else {}),
        }
        self._pool = settings.pool(self.timeout)

    def send(self, push: bytes) -> PushResult:
        """Send one push and return the result; never raise."""
        try:
            # Do not let urllib3 read the whole response, because the size must be limited.
            response = self._pool.request(
                "POST",
                self._url,
                body=gzip.compress(push, 1, mtime=0) if self._gzip else push,
                headers=self._headers,
                redirect=False,
                preload_content=False,
            )
            try:
                body = response.read(MAX_RESPONSE_BYTES, decode_content=True) or b""
                return interpret(response.status, {k.lower(): v for k, v in response.headers.items()}, body)
            finally:
                if response.status not in (200, 204):
                    response.close()  # Close the connection without reading the rest of the response.
                response.release_conn()
        except urllib3.exceptions.HTTPError as error:
            return self._unreachable(error)
        except (OSError, ValueError) as error:
            return PushResult(Verdict.MISCONFIGURED, one_line(str(error)), Cause.VARIABLES)

    def close(self) -> None:
        """Close the connection."""
        self._pool.clear()

    def _unreachable(self, error: urllib3.exceptions.HTTPError) -> PushResult:
        cause = getattr(error, "reason", None) or error.__cause__ or error
        if isinstance(error, urllib3.exceptions.SSLError) or isinstance(cause, ssl.SSLError):
            text = one_line(str(cause))
            return PushResult(
                Verdict.RETRY,
                f"{self.where}: TLS: {text}",
                Cause.CA_KEY_USAGE if "key usage" in text else Cause.CERTIFICATE,
            )
        timed_out = isinstance(error, urllib3.exceptions.TimeoutError)
        # Exclude NewConnectionError: it is a subclass of urllib3's TimeoutError, but not a timeout.
        if timed_out and not isinstance(error, urllib3.exceptions.NewConnectionError):
            return PushResult(
                Verdict.RETRY,
                f"{self.where}: no response within {self.timeout:g} s",
                Cause.TIMEOUT,
                delivered=not isinstance(error, urllib3.exceptions.ConnectTimeoutError),
            )
        text = one_line(str(cause)).rpartition(": ")[2]
        delivered = not isinstance(error, urllib3.exceptions.NewConnectionError)
        return PushResult(
            Verdict.RETRY,
            f"{self.where}: {text}",
            Cause.UNREACHABLE,
            delivered=delivered,
        )


def _timeout(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        return DEFAULT_TIMEOUT_SECONDS
    if number <= 0:
        return DEFAULT_TIMEOUT_SECONDS
    return number if number < 1000 else number / 1000
