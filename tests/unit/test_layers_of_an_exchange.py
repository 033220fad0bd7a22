"""Test that no function of a lower layer calls a function of an upper layer when an exchange is recorded.

import-linter cannot detect such calls, because a callback can call an upper layer without an import.
"""

from __future__ import annotations

import asyncio
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from mitmproxy import http
from mitmproxy.test import tflow

from openclaw_egress.export.exporter import Exporter
from openclaw_egress.observability.metrics import Metrics
from openclaw_egress.policy.codes import Code
from openclaw_egress.policy.destination import parse_destination
from openclaw_egress.policy.model import Decision
from openclaw_egress.proxy.access_control import INSPECT, Allowed
from openclaw_egress.proxy.recorder import Recorder
from openclaw_egress.recording.otlp import assemble
from openclaw_egress.spool.writer import Spool

Place = tuple[str, str]
Calls = list[tuple[Place, Place]]

ROOT = Path(__file__).parents[2]
PACKAGE = str(ROOT / "files" / "addon" / "openclaw_egress")
REQUEST = b'{"model":"claude-x","stream":true,"messages":[{"role":"user","content":"hello"}]}'
EVENTS = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"m","model":"claude-x","role":"assistant",'
    b'"content":[],"usage":{"input_tokens":3,"output_tokens":1}}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)


def layers() -> dict[str, int]:
    """Return the layer of each module or folder of the package in import-linter's contract. The top layer is 0."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    names = next(contract for contract in contracts if contract["type"] == "layers")["layers"]
    return {
        module.strip().removeprefix("openclaw_egress."): rank
        for rank, layer in enumerate(names)
        for module in layer.split("|")
    }


def upward(calls: Calls) -> list[tuple[str, str]]:
    """Return (caller, callee) for each call from a lower layer to an upper layer."""
    rank = layers()
    return [(caller[1], callee[1]) for caller, callee in calls if rank[callee[0]] < rank[caller[0]]]


def place(frame: FrameType) -> Place | None:
    """Return the top-level module and the function of a frame, or None if its code is outside the package."""
    file = frame.f_code.co_filename
    if not file.startswith(PACKAGE + "/"):
        return None
    module = file[len(PACKAGE) + 1 :].removesuffix(".py").split("/")[0]
    return module, f"{file[len(PACKAGE) + 1 :]}:{frame.f_code.co_qualname}"


@contextmanager
def traced(calls: Calls) -> Iterator[None]:
    """Add each call between functions of the package to ``calls``. Skip library frames between caller and callee."""

    def profile(frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or (callee := place(frame)) is None:
            return
        above = frame.f_back
        while above is not None and place(above) is None:
            above = above.f_back
        if above is not None and (caller := place(above)) is not None:
            calls.append((caller, callee))

    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(None)


def finish_an_exchange(spool: Spool) -> None:
    """Pass one complete model call with a streamed response through the recorder."""
    recorder = Recorder(spool, Metrics(), 1 << 20)
    flow = tflow.tflow(req=http.Request.make("POST", "https://api.anthropic.com/v1/messages", REQUEST))
    flow.request.headers["authorization"] = "Bearer sk-ant-api03-NeverOnDisk"
    flow.client_conn.peername = ("127.0.0.1", 1)
    decision = Decision(True, "default", Code.ALLOWED_BY_ACTION, inspect=True)
    flow.metadata[INSPECT] = Allowed("gateway", parse_destination("api.anthropic.com", 443), decision)
    recorder.requestheaders(flow)
    recorder.request(flow)
    flow.response = http.Response.make(200, b"", {"content-type": "text/event-stream"})
    del flow.response.headers["content-length"]
    recorder.responseheaders(flow)
    for data in (EVENTS[:100], EVENTS[100:], b""):
        flow.response.stream(data)
    recorder.response(flow)


def test_finished_exchange_never_calls_an_upper_layer(tmp_path):
    calls: Calls = []
    with Spool(tmp_path / "spool.db", sync_seconds=None) as spool:

        async def body() -> None:
            with traced(calls):
                finish_an_exchange(spool)

        asyncio.run(body())
        with traced(calls):
            waiting = spool.pending(Exporter.__init__.__kwdefaults__["max_push_bytes"])
            assemble((record.resource, record.otlp) for record in waiting)
            spool.acknowledge([record.seq for record in waiting])
        assert next(spool.reader.query()).model == "claude-x"
    visited = {callee[0] for _, callee in calls}
    assert {"spool", "recording", "llm", "wire"} <= visited, visited
    assert upward(calls) == []


def test_only_calls_to_an_upper_layer_count():
    recording, spool, proxy = ("recording", "capture.py:feed"), ("spool", "writer.py:add"), ("proxy", "recorder.py:tap")
    calls = [(proxy, recording), (recording, recording), (recording, spool), (spool, proxy)]
    assert upward(calls) == [(recording[1], spool[1]), (spool[1], proxy[1])]
