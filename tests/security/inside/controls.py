"""Positive controls: allowed requests must succeed, even those that the gateway sends while a sandbox attacks."""

from __future__ import annotations

import json
import time
from typing import Any

from tests.security.inside.core import Knowledge
from tests.security.inside.sockets import connect, connected, read_answer, status_of, tls


def main(parcel: dict[str, Any]) -> None:
    """Send requests over TLS to a host, through the listener, for ``seconds`` (0: one request). Print JSON results."""
    knowledge = Knowledge.read(parcel["knowledge"])
    end, answers = time.monotonic() + parcel["seconds"], []
    while True:
        answers.append(answer(knowledge, parcel["host"], parcel["path"]))
        if time.monotonic() >= end:
            break
        time.sleep(0.2)
    print(json.dumps(answers))


def answer(knowledge: Knowledge, host: str, path: str) -> str:
    """Send one request. Return the status code or the error."""
    try:
        with connected(knowledge.proxy) as sock:
            status = connect(sock, f"{host}:{knowledge.tls_port}")
            if status != 200:
                return f"{status} to CONNECT"
            with tls(sock, host) as inside:
                inside.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nx-api-key: attack\r\n\r\n".encode())
                return str(status_of(read_answer(inside)))
    except OSError as error:
        return str(error)
