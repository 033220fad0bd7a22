"""One push to the store, and what its answer means.

What the answers look like: OTLP/HTTP (https://opentelemetry.io/docs/specs/otlp/#otlphttp-response) and, beyond it, what
Loki was measured to say: success is 204, an error's body is a ``google.rpc.Status``, and 429 comes without
``Retry-After``. `interpret` is pure; `Sender` does the talking.
"""

from __future__ import annotations

import gzip
import json
import logging
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any
from urllib.parse import unquote

import urllib3
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.util.re import parse_env_headers

from openclaw_egress import __version__
from openclaw_egress.otlp import CONTENT_TYPE
from openclaw_egress.redaction import redact_text, redact_url, truncate_utf8

log = logging.getLogger("openclaw_egress.export")

DEFAULT_TIMEOUT_SECONDS = 10.0
MAX_ANSWER_BYTES = 4 * 1024 * 1024
"""An error's body names each refused record: Loki's was larger than 64 KB for 445 records."""
_MAX_MESSAGE_BYTES = 16 * 1024
MAX_RETRY_AFTER_SECONDS = 300.0


class Verdict(Enum):
    """What to do after an answer."""

    ACCEPTED = "accepted"
    RETRY = "retry"
    """Not now: the network, an overload, a fault of the store's."""
    REFUSED = "refused"
    """Something in this push will never be taken; the others may have been."""
    TOO_LARGE = "too large"
    MISCONFIGURED = "misconfigured"
    """Nothing will be taken until somebody changes a setting: no fault of the records."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, understood. ``message`` is for people: one line, without secrets."""

    verdict: Verdict
    message: str = ""
    remedy: str = ""
    retry_after: float | None = None
    status: int | None = None
    """The HTTP status of an answer to try again after; ``None`` where there was none."""
    delivered: bool = False
    """Of a push to try again: whether the store may have got it, rather than that no connection was made."""


# 400s that say nothing about the records; what Loki answers to settings of ours or of its own.
_SETTINGS = (
    (re.compile(r"unsupported content encoding"), "set OTEL_EXPORTER_OTLP_LOGS_COMPRESSION to gzip or none"),
    (re.compile(r"content type: .* is not supported"), "the endpoint takes no OTLP in protobuf: check its path"),
    (re.compile(r"illegal wireType|cannot parse invalid wire-format|unexpected EOF"),
     "the bytes arrive changed: look for a proxy in between"),
    (re.compile(r"structured metadata.*(?:disallowed|not allowed)|disallowed structured metadata"),
     "set allow_structured_metadata: true in Loki's limits_config"),
    (re.compile(r"schema v13 is required"), "Loki needs schema v13 (tsdb) for OTLP"),
)  # fmt: skip


def interpret(status: int, headers: Mapping[str, str], body: bytes) -> Answer:
    """What an HTTP answer to a push means.

    Args:
        status: the HTTP status code.
        headers: the answer's, names in lower case.
        body: the answer's, perhaps cut short.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if status in (200, 204):
        return _success(kind, body)
    message = f"HTTP {status}: {_error_message(kind, body)}".removesuffix(": ")
    if status == 413:
        return Answer(Verdict.TOO_LARGE, message)
    if status in (408, 429) or status >= 500:
        return Answer(
            Verdict.RETRY, message, retry_after=_seconds(headers.get("retry-after")), status=status, delivered=True
        )
    if status in (400, 422) and kind != "text/html":
        for pattern, remedy in _SETTINGS:
            if pattern.search(message):
                return Answer(Verdict.MISCONFIGURED, message, remedy)
        return Answer(Verdict.REFUSED, message)
    if 300 <= status < 400:
        target = redact_url(headers.get("location", ""))
        return Answer(Verdict.MISCONFIGURED, message, f"it redirects to {target or 'nowhere'}: name the final URL")
    return Answer(Verdict.MISCONFIGURED, message, _REMEDIES.get(status, _WRONG_ENDPOINT))


_WRONG_ENDPOINT = "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT must be the whole URL, such as http://10.0.0.2:3100/otlp/v1/logs"
_REMEDIES = {
    401: "the store wants credentials: set OTEL_EXPORTER_OTLP_LOGS_HEADERS (authorization=…, x-scope-orgid=…)",
    403: "the store does not allow these credentials to write: check OTEL_EXPORTER_OTLP_LOGS_HEADERS",
}


def _success(kind: str, body: bytes) -> Answer:
    if not body:
        return Answer(Verdict.ACCEPTED)
    try:
        if kind == "application/json":
            partial = json.loads(body).get("partialSuccess") or {}
            rejected, message = int(partial.get("rejectedLogRecords") or 0), str(partial.get("errorMessage") or "")
        elif kind in (CONTENT_TYPE, "application/octet-stream", ""):
            success = ExportLogsServiceResponse.FromString(body).partial_success
            rejected, message = success.rejected_log_records, success.error_message
        else:
            return Answer(Verdict.MISCONFIGURED, f"HTTP 200 with {kind or 'no type'}, no OTLP answer", _WRONG_ENDPOINT)
    except (DecodeError, ValueError, AttributeError, TypeError):
        return Answer(Verdict.MISCONFIGURED, "HTTP 200 with a body that is no OTLP answer", _WRONG_ENDPOINT)
    if rejected:
        return Answer(Verdict.REFUSED, f"{rejected} records rejected: {one_line(message)}")
    return Answer(Verdict.ACCEPTED, one_line(message))


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
    """Return the message (field 2) of a ``google.rpc.Status`` as far as it goes; ``None``: it is not one."""
    found = re.match(rb"(?s)(?:\x08[\x80-\xff]*[\x00-\x7f])?\x12[\x80-\xff]{0,4}[\x00-\x7f](.+)", body)
    return found.group(1).decode("utf-8", "replace") if found else None


def one_line(text: str) -> str:
    """Someone else's text as one printable line of at most 1 KB, without secrets."""
    return truncate_utf8(redact_text(" ".join("".join(c if c.isprintable() else " " for c in text).split())), 1024)


def _seconds(retry_after: str | None) -> float | None:
    """``Retry-After`` in seconds; its form with a date is not worth the trust in two clocks."""
    if retry_after is None or not retry_after.strip().isdigit():
        return None
    return min(float(retry_after), MAX_RETRY_AFTER_SECONDS)


class Sender:
    """Posts to one endpoint, as ``OTEL_EXPORTER_OTLP_*`` says; ``…_LOGS_…`` wins over the general name.

    Redirects are not followed, and no proxy is taken from the environment: the proxy's own records must not depend on
    a proxy. A timeout is in milliseconds, as the specification says; a number below 1,000 can only have been meant as
    seconds, which is how other SDKs read it.
    """

    def __init__(self, endpoint: str, environ: Mapping[str, str]) -> None:
        def setting(name: str) -> str:
            for prefix in ("OTEL_EXPORTER_OTLP_LOGS_", "OTEL_EXPORTER_OTLP_"):
                if value := environ.get(prefix + name, "").strip():
                    return value
            return ""

        url = urllib3.util.parse_url(endpoint)
        self._url = url._replace(auth=None).url
        self.where = f"{url.host}:{url.port or (443 if url.scheme == 'https' else 80)}"
        compression = setting("COMPRESSION").lower()
        if compression not in ("", "none", "gzip"):
            log.warning("OTEL_EXPORTER_OTLP_COMPRESSION=%s is not supported: none is used; gzip is", compression)
        self._gzip = compression == "gzip"
        self._headers = {
            "user-agent": f"openclaw-egress/{__version__}",
            **(urllib3.util.make_headers(basic_auth=unquote(url.auth)) if url.auth else {}),
            **parse_env_headers(setting("HEADERS"), liberal=True),
            "content-type": CONTENT_TYPE,
            **({"content-encoding": "gzip"} if self._gzip else {}),
        }
        tls: dict[str, Any] = {
            "ca_certs": setting("CERTIFICATE") or None,
            "cert_file": setting("CLIENT_CERTIFICATE") or None,
            "key_file": setting("CLIENT_KEY") or None,
        }
        self.timeout = _timeout(setting("TIMEOUT"))
        self._pool = urllib3.PoolManager(
            num_pools=1, maxsize=1, retries=False, timeout=urllib3.Timeout(total=self.timeout), **tls
        )

    def send(self, push: bytes) -> Answer:
        """Post one push; never raises."""
        try:
            # The answer is read in a bounded way, hence by hand.
            answer = self._pool.request(
                "POST",
                self._url,
                body=gzip.compress(push, 1, mtime=0) if self._gzip else push,
                headers=self._headers,
                redirect=False,
                preload_content=False,
            )
            try:
                body = answer.read(MAX_ANSWER_BYTES, decode_content=True) or b""
                return interpret(answer.status, {k.lower(): v for k, v in answer.headers.items()}, body)
            finally:
                if answer.status not in (200, 204):
                    answer.close()  # whatever else comes on this connection is not wanted
                answer.release_conn()
        except urllib3.exceptions.HTTPError as error:
            return self._unreachable(error)
        except (OSError, ValueError) as error:
            return Answer(Verdict.MISCONFIGURED, one_line(str(error)), "check the variables OTEL_EXPORTER_OTLP_LOGS_*")

    def close(self) -> None:
        """Give up the connection."""
        self._pool.clear()

    def _unreachable(self, error: urllib3.exceptions.HTTPError) -> Answer:
        cause = getattr(error, "reason", None) or error.__cause__ or error
        if isinstance(error, urllib3.exceptions.SSLError) or isinstance(cause, ssl.SSLError):
            text = one_line(str(cause))
            remedy = "name the store's CA in OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE"
            if "key usage" in text:
                remedy = (
                    "the store's CA certificate lacks keyUsage (keyCertSign), which RFC 5280 demands: issue it again"
                )
            return Answer(Verdict.RETRY, f"{self.where}: TLS: {text}", remedy)
        timed_out = isinstance(error, urllib3.exceptions.TimeoutError)
        if timed_out and not isinstance(error, urllib3.exceptions.NewConnectionError):  # a kind of timeout to urllib3
            return Answer(
                Verdict.RETRY,
                f"{self.where}: no answer within {self.timeout:g} s",
                "is the store up?",
                delivered=not isinstance(error, urllib3.exceptions.ConnectTimeoutError),
            )
        text = one_line(str(cause)).rpartition(": ")[2]
        delivered = not isinstance(error, urllib3.exceptions.NewConnectionError)
        return Answer(
            Verdict.RETRY, f"{self.where}: {text}", "is the store up, and reachable from here?", delivered=delivered
        )


def _timeout(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        return DEFAULT_TIMEOUT_SECONDS
    if number <= 0:
        return DEFAULT_TIMEOUT_SECONDS
    return number if number < 1000 else number / 1000
