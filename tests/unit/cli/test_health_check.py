"""Tests of the health check. Some of them run another program on the health port."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from openclaw_egress.cli import health_check


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """Run a server on the health port. It responds with the first item of the list that the fixture yields."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(bodies[0])

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        monkeypatch.setenv("EGRESS_HEALTH_PORT", str(server.server_port))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield bodies
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "report",
    [
        {"status": "up"},
        [],
        {"ok": True, "problems": None},
        {"ok": True, "problems": "none"},
        {"ok": True, "warnings": 7},
        {"ok": True, "export": []},
        {"ok": True, "ca": "none"},
    ],
)
def test_report_of_another_program_is_ignored(answer, report):
    answer.append(json.dumps(report).encode())
    assert health_check.ask("/readyz") is None


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff", b"[" * 100_000])
def test_response_without_json_does_not_count_as_a_report(answer, body):
    answer.append(body)
    assert health_check.ask("/readyz") is None


@pytest.mark.parametrize("report", [{"ok": True}, {"ok": False, "problems": ["a"], "warnings": [], "export": {}}])
def test_report_is_returned(answer, report):
    answer.append(json.dumps(report).encode())
    assert health_check.ask("/readyz") == report


def test_response_is_read_to_a_limit(answer, monkeypatch):
    monkeypatch.setattr(health_check, "_MAX_BODY", 10)
    answer.append(b"x" * 1000)
    assert health_check.fetch("/metrics") == b"x" * 10
