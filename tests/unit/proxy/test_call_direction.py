"""Tests that no function of a lower layer of the package calls a higher layer while an exchange ends."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from types import CodeType, FrameType

import pytest
from mitmproxy import http

from openclaw_egress.spool.writer import Spool
from tests.unit.proxy.test_recorder_memory import begun, run

ROOT = Path(__file__).resolve().parents[3]
REQUEST = {"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi."}]}
RESPONSE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5",
    "content": [{"type": "text", "text": "Hello."}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 5, "output_tokens": 4},
}


def layers() -> dict[str, int]:
    """Return the layer of each folder and module of the package, from import-linter's contract. The lowest is 0."""
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (contract,) = (found for found in linter["contracts"] if found["type"] == "layers")
    return {
        name.strip().rpartition(".")[2]: number
        for number, line in enumerate(reversed(contract["layers"]))
        for name in line.split("|")
    }


class Calls:
    """A function for `sys.setprofile` that collects calls from a lower layer of the package to a higher one."""

    def __init__(self) -> None:
        self.upward: list[str] = []
        self.called: set[str] = set()
        self._layers = layers()
        self._callers: list[tuple[int, str] | None] = []

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        if event == "return" and self._callers:
            self._callers.pop()
        elif event == "call":
            found = self._layer(frame.f_code)
            caller = next((one for one in reversed(self._callers) if one), None)
            self._callers.append(found)
            if found:
                self.called.add(found[1])
            if found and caller and found[0] > caller[0]:
                self.upward.append(f"{caller[1]} -> {found[1]}")

    def _layer(self, code: CodeType) -> tuple[int, str] | None:
        path = code.co_filename.rpartition("/openclaw_egress/")[2]
        top = path.partition("/")[0].removesuffix(".py")
        return (self._layers[top], f"{path}:{code.co_qualname}") if top in self._layers else None


@pytest.fixture
def spool(tmp_path):
    opened = Spool(tmp_path / "spool.db", sync_seconds=None)
    yield opened
    opened.close()


def test_finished_exchange_calls_no_higher_layer(spool):
    async def finished() -> Calls:
        recorder, flow = begun(spool, "/v1/messages")
        flow.request.content = json.dumps(REQUEST).encode()
        recorder.requestheaders(flow)
        recorder.request(flow)
        body = json.dumps(RESPONSE).encode()
        flow.response = http.Response.make(200, body, {"content-type": "application/json"})
        recorder.responseheaders(flow)
        calls = Calls()
        sys.setprofile(calls)
        try:
            recorder.response(flow)
        finally:
            sys.setprofile(None)
        return calls

    calls = run(finished())
    assert len(calls.called) > 50 and any(name.startswith("spool/") for name in calls.called)
    assert not calls.upward
