"""Clients that read log lines back from a destination of records: Loki or VictoriaLogs.

Each request stays within the limits of a default configuration. Loki refuses a result of more than 4 MiB
(``grpc_server_max_send_msg_size``) with status 500. It refuses a range of more than 30 days, or more than 5,000 lines,
with status 400. Loki's queries return lines older than three hours only after Loki has flushed their chunk.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Protocol
from urllib.parse import urlencode

import urllib3

from openclaw_egress.audit.chain import ChainLine
from openclaw_egress.errors import EgressError
from openclaw_egress.export.otlp_client import HttpSettings, one_line

LOGS_PATH = "/otlp/v1/logs"
VICTORIA_LOGS_PATH = "/insert/opentelemetry/v1/logs"
_WINDOW_NS = 24 * 3600 * 10**9
_FIRST_PAGE, _LARGEST_PAGE = 16, 5000
_TOO_LARGE = "larger than max"


class StoreError(EgressError):
    """The destination cannot be read. The message contains the destination, its response, and a remedy."""


class Store(Protocol):
    """A destination whose lines can be read back."""

    name: str
    """The destination's name in messages, such as ``Loki http://10.0.0.2:3100``."""

    def lines(self, instance_id: str, start_ns: int, end_ns: int) -> Iterator[ChainLine]:
        """Yield the lines of an instance with a time in ``[start_ns, end_ns)``, almost in chronological order.

        Raises:
            StoreError: the destination does not respond, or refuses the query.
        """


def store_at(url: str, environ: Mapping[str, str]) -> Store:
    """Return a client for the destination at an OTLP endpoint, or at the base URL of a Loki server.

    Args:
        url: the value of ``OTEL_EXPORTER_OTLP_LOGS_ENDPOINT``, or a base URL such as ``http://10.0.0.2:3100``.
        environ: credentials and certificates, as for the exporter (``OTEL_EXPORTER_OTLP_*``).

    Raises:
        StoreError: the destination at this URL has no known API for reading.
    """
    settings = HttpSettings.of(url, environ)
    base = settings.url.rstrip("/")
    if base.endswith(VICTORIA_LOGS_PATH):
        return VictoriaLogs(base.removesuffix(VICTORIA_LOGS_PATH), settings)
    if base.endswith(LOGS_PATH) or urllib3.util.parse_url(base).path in (None, "", "/"):
        return Loki(base.removesuffix(LOGS_PATH), settings)
    raise StoreError(
        f"{one_line(base)}: records cannot be read back from this URL; use the base URL of a Loki "
        "(`--store http://10.0.0.2:3100`), or audit the spool only (`--store none`)"
    )


class _Reader:
    def __init__(self, base: str, settings: HttpSettings) -> None:
        self._base = base
        self._headers = {name: value for name, value in settings.headers.items() if name != "content-encoding"}
        self._pool = settings.pool(timeout=max(settings.timeout, 60.0))

    def _get(self, path: str, query: Mapping[str, Any], **options: Any) -> urllib3.BaseHTTPResponse:
        try:
            return self._pool.request(
                "GET", f"{self._base}{path}?{urlencode(query)}", headers=self._headers, redirect=False, **options
            )
        except urllib3.exceptions.HTTPError as error:
            raise StoreError(
                f"{self._base} does not respond: {one_line(str(error))}; check that it runs and that this machine "
                "reaches it, then repeat the command"
            ) from None

    def _refused(self, status: int, body: bytes) -> StoreError:
        remedy = (
            "set credentials that permit queries in OTEL_EXPORTER_OTLP_LOGS_HEADERS"
            if status in (401, 403)
            else "check the URL and the destination's query limits"
        )
        return StoreError(f"{self._base}: HTTP {status}: {one_line(body.decode('utf-8', 'replace'))[:300]}; {remedy}")


class Loki(_Reader):
    """A Loki server, read through ``query_range``. The number of lines per page adapts to their size."""

    def __init__(self, base: str, settings: HttpSettings) -> None:
        super().__init__(base, settings)
        self.name = f"Loki {base}"
        self._page = _FIRST_PAGE

    def lines(self, instance_id: str, start_ns: int, end_ns: int) -> Iterator[ChainLine]:
        """Yield the lines of an instance; see `Store.lines`."""
        query = f'{{service_instance_id="{instance_id}"}}'
        start = start_ns
        while start < end_ns:
            end = min(end_ns, start + _WINDOW_NS)
            found = self._query(query, start, end)
            last = found[-1].time_ns if found else 0
            if len(found) < self._page:
                yield from found
                start = end
            elif found[0].time_ns == last:
                # All lines of this page have the same timestamp: request a larger page that begins with it.
                if self._page == _LARGEST_PAGE:
                    yield from found
                    start = last + 1
                self._page = min(_LARGEST_PAGE, 4 * self._page)
            else:
                yield from (line for line in found if line.time_ns < last)
                start = last
                self._page = min(_LARGEST_PAGE, 2 * self._page)

    def _query(self, query: str, start: int, end: int) -> list[ChainLine]:
        while True:
            response = self._get(
                "/loki/api/v1/query_range",
                {"query": query, "start": start, "end": end, "limit": self._page, "direction": "forward"},
            )
            if response.status == 500 and _TOO_LARGE in response.data.decode("utf-8", "replace") and self._page > 1:
                self._page = max(1, self._page // 2)
                continue
            if response.status != 200:
                raise self._refused(response.status, response.data)
            try:
                streams = json.loads(response.data)["data"]["result"]
                found = [ChainLine(int(entry[0]), str(entry[1])) for stream in streams for entry in stream["values"]]
            except (ValueError, KeyError, TypeError, IndexError):
                raise self._refused(response.status, response.data) from None
            return sorted(found)


class VictoriaLogs(_Reader):
    """A VictoriaLogs server, read with one streamed LogsQL query for each day."""

    def __init__(self, base: str, settings: HttpSettings) -> None:
        super().__init__(base, settings)
        self.name = f"VictoriaLogs {base}"

    def lines(self, instance_id: str, start_ns: int, end_ns: int) -> Iterator[ChainLine]:
        """Yield the lines of an instance; see `Store.lines`. The order within a day is not defined."""
        query = f'{{"service.instance.id"="{instance_id}"}} | fields _time, _msg'
        for start in range(start_ns, end_ns, _WINDOW_NS):
            # Subtract 1, because VictoriaLogs includes `end` in the range.
            end = min(end_ns, start + _WINDOW_NS) - 1
            response = self._get(
                "/select/logsql/query", {"query": query, "start": start, "end": end}, preload_content=False
            )
            try:
                if response.status != 200:
                    raise self._refused(response.status, response.read(4096))
                yield from (ChainLine(0, _message(line)) for line in response if line.strip())
            except urllib3.exceptions.HTTPError as error:
                raise StoreError(f"{self._base}: {one_line(str(error))}; repeat the command") from None
            finally:
                response.close()


def _message(line: bytes) -> str:
    try:
        return str(json.loads(line)["_msg"])
    except (ValueError, KeyError, TypeError):
        return ""
