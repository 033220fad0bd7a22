"""Tests that the memory charged for an exchange covers the memory that the recorder actually holds."""

from __future__ import annotations

import asyncio
import gzip
import random
import tracemalloc

import brotli
import pytest
from backports import zstd
from mitmproxy import http
from mitmproxy.test import tflow

from openclaw_egress.observability.metrics import Metrics
from openclaw_egress.policy.codes import Code
from openclaw_egress.policy.destination import parse_destination
from openclaw_egress.policy.model import Decision
from openclaw_egress.proxy import memory, recorder
from openclaw_egress.proxy.access_control import INSPECT, Allowed
from openclaw_egress.proxy.recorder import EXCHANGE, Recorder
from openclaw_egress.spool.writer import Spool

MIB = 1024 * 1024
BODY_LIMIT = 4 * MIB
SPARE = 512 * 1024
"""Bytes that an exchange may hold beyond the bytes that it is charged for (`held`): slices of the credential scan, a
chunk, and small objects. The reserves `memory.SLACK` and `memory.READ_ROOM` cover them."""


@pytest.fixture
def spool(tmp_path):
    opened = Spool(tmp_path / "spool.db", sync_seconds=None)
    yield opened
    opened.close()


def begun(spool, path, *headers):
    """Return a recorder, and a flow with an allowed request to this path."""
    found = Recorder(spool, Metrics(), BODY_LIMIT)
    flow = tflow.tflow(req=http.Request.make("POST", f"https://api.anthropic.com{path}"))
    flow.request.headers = http.Headers([(name.encode(), value.encode()) for name, value in headers])
    flow.client_conn.peername = ("127.0.0.1", 1)
    decision = Decision(True, "default", Code.ALLOWED_BY_ACTION, inspect=True)
    flow.metadata[INSPECT] = Allowed("gateway", parse_destination("api.anthropic.com", 443), decision)
    return found, flow


def pieces(size, seed=1):
    """Yield the chunks of a body of this size in which no text looks like a credential."""
    words = random.Random(seed).choices(["list", "of", "words", "and", "more"], k=9000)
    text = " ".join(words).encode()
    for at in range(0, size, 65536):
        yield (text * (65536 // len(text) + 2))[at % 97 :][: min(65536, size - at)]


def run(coroutine):
    return asyncio.run(coroutine)


@pytest.mark.parametrize("path", ["/v1/files", "/v1/messages"], ids=["scanned", "model api"])
def test_charge_covers_a_streamed_request(spool, path):
    async def body():
        found, flow = begun(spool, path, ("transfer-encoding", "chunked"))
        found.requestheaders(flow)
        exchange = flow.metadata[EXCHANGE]
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for piece in pieces(8 * MIB):
            flow.request.stream(piece)
            held = tracemalloc.get_traced_memory()[0] - before
            assert held <= exchange.held + SPARE
            # A second copy of the body besides the one in the capture would exceed this limit.
            assert held <= BODY_LIMIT * 5 // 4 + SPARE
            assert exchange.held <= exchange.expected(8 * MIB) + SPARE
        tracemalloc.reset_peak()
        flow.request.stream(b"")
        assert tracemalloc.get_traced_memory()[1] - before <= BODY_LIMIT * 5 // 4 + 3 * SPARE
        tracemalloc.stop()

    run(body())


@pytest.mark.parametrize("path", ["/v1/files", "/v1/messages"], ids=["scanned", "model api"])
def test_charge_covers_a_streamed_response(spool, path):
    async def body():
        found, flow = begun(spool, path)
        found.requestheaders(flow)
        found.request(flow)
        exchange = flow.metadata[EXCHANGE]
        flow.response = http.Response.make(200, b"", {"content-type": "text/plain", "transfer-encoding": "chunked"})
        flow.response.headers.pop("content-length", None)
        found.responseheaders(flow)
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for piece in pieces(8 * MIB):
            flow.response.stream(piece)
            held = tracemalloc.get_traced_memory()[0] - before
            assert held <= exchange.held + SPARE
        assert held <= BODY_LIMIT * 5 // 4 + SPARE or path == "/v1/messages"
        tracemalloc.stop()

    run(body())


@pytest.mark.parametrize("held", [True, False], ids=["held", "streamed"])
@pytest.mark.parametrize("size", [1000, 700_000, 5 * MIB])
def test_scanned_request_is_journalled_at_its_end(spool, held, size):
    async def body():
        length = ("content-length", str(size)) if held and size < MIB else ("transfer-encoding", "chunked")
        found, flow = begun(spool, "/v1/files", length)
        found.requestheaders(flow)
        data = b"".join(pieces(size))
        if flow.request.stream:
            for at in range(0, size, 65536):
                flow.request.stream(data[at : at + 65536])
                assert not journalled(spool, flow)
            flow.request.stream(b"")
        else:
            flow.request.data.content = data
        found.request(flow)
        assert journalled(spool, flow) == data[:BODY_LIMIT]

    run(body())


def test_credentials_are_never_journalled(spool):
    async def body():
        found, flow = begun(spool, "/v1/files", ("transfer-encoding", "chunked"))
        found.requestheaders(flow)
        flow.request.stream(b'{"padding": "' + b"x " * 200_000 + b'", "client_secret": "s3cr3t"}')
        flow.request.stream(b"")
        found.request(flow)
        assert not journalled(spool, flow)

    run(body())


def journalled(spool, flow):
    exchange_id = flow.metadata[EXCHANGE].capture.id
    rows = spool._storage.db.execute("SELECT data FROM chunks WHERE id = ? ORDER BY n", (exchange_id,))
    return b"".join(row[0] for row in rows)


@pytest.mark.parametrize("coding", ["zstd", "br", "gzip", "zstd, zstd"])
def test_charge_covers_the_window_of_a_decoder_and_ends_with_the_body(spool, coding):
    plain = random.Random(3).randbytes(6 * MIB)
    wire = {
        "zstd": lambda: zstd.compress(plain, options={zstd.CompressionParameter.window_log: 23}),
        "br": lambda: brotli.compress(plain, lgwin=24, quality=1),
        "gzip": lambda: gzip.compress(plain, 1),
        "zstd, zstd": lambda: zstd.compress(zstd.compress(plain)),
    }[coding]()
    window = {"zstd": 6 * MIB, "br": 6 * MIB, "gzip": 32 * 1024, "zstd, zstd": 3 * MIB}[coding]

    async def body():
        found, flow = begun(spool, "/v1/messages", ("transfer-encoding", "chunked"), ("content-encoding", coding))
        found.requestheaders(flow)
        exchange = flow.metadata[EXCHANGE]
        for at in range(0, len(wire), 65536):
            flow.request.stream(wire[at : at + 65536])
        kept = BODY_LIMIT + BODY_LIMIT + BODY_LIMIT // 4
        assert exchange.held >= kept + window - 2 * MIB
        flow.request.stream(b"")
        assert exchange.held <= BODY_LIMIT * 11 // 8 + SPARE

    run(body())


class Refusing:
    """A fake of the memory accounts. It accepts charges up to ``room`` bytes and refuses larger ones."""

    def __init__(self, room):
        self.room = room
        self.claims = []
        self.exchange = None

    def claim(self, client, **_):
        self.claims.append(self.exchange.held)
        return self.exchange.held <= self.room


@pytest.mark.parametrize("bomb", [gzip.compress(bytes(32 * MIB)), zstd.compress(bytes(32 * MIB))], ids=["gzip", "zstd"])
def test_decompression_bomb_is_decoded_only_up_to_the_budget(spool, monkeypatch, bomb):
    accounts = Refusing(2 * MIB)
    monkeypatch.setattr(memory, "_accounts", accounts)

    async def body():
        coding = "gzip" if bomb[:2] == b"\x1f\x8b" else "zstd"
        found, flow = begun(spool, "/v1/messages", ("transfer-encoding", "chunked"), ("content-encoding", coding))
        found.requestheaders(flow)
        exchange = accounts.exchange = flow.metadata[EXCHANGE]
        with pytest.raises(Exception, match="memory"):
            for at in range(0, len(bomb), 65536):
                flow.request.stream(bomb[at : at + 65536])
        assert exchange.failed
        assert max(accounts.claims) <= 3 * MIB

    monkeypatch.setattr(recorder, "abort", lambda _: None)
    run(body())
