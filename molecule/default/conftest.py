"""Calls of the real OpenClaw to LLM providers, made once for all tests of this scenario."""

import json
import secrets
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from molecule.lab.hosts import NAME, OPENAI_KEY, agent_turn, in_gateway, provider_log, soon

WEBSOCKET_MODEL = "openai/gpt-5.5"  # the lab's openclaw.json sets the transport of this model
PATHS = {"plain": "/v1/embeddings", "stream": "/v1/messages", "websocket": "/v1/responses"}
MARKS = {way: f"lab-{way}-{secrets.token_hex(4)}" for way in PATHS}
WATCH = (Path(__file__).parent / "connections.py").read_text()


@dataclass(frozen=True)
class Calls:
    """The results of three model calls: with a plain response, with a stream of events, and over a WebSocket."""

    #: The remote address and port of each connection that the gateway had during the calls.
    connections: list[tuple[str, int]]
    replies: dict[str, str]
    #: The log entries of the providers' responses. OpenClaw can also request embeddings of its own.
    log: list[dict[str, Any]]


@contextmanager
def connections() -> Iterator[list[tuple[str, int]]]:
    """Record the remote address and port of each connection that the gateway has within the context.

    Yield the list, which is filled when the context exits.
    """
    file = f"/tmp/watch-{secrets.token_hex(4)}"
    docker = ("docker", "exec", f"{NAME}-vps1", "docker", "exec", "--user", "node", "openclaw-gateway")
    command = (*docker, "python3", "-c", WATCH, file)
    found: list[tuple[str, int]] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
        try:
            assert soon(lambda: "yes" in in_gateway("sh", "-c", f"test -e {file} && echo yes; true"))
            yield found
        finally:
            in_gateway("rm", "--force", file)
            printed, _ = watching.communicate(timeout=30)
    found += [(address, int(port)) for address, port in (entry.split() for entry in json.loads(printed))]


@pytest.fixture(scope="session")
def calls() -> Calls:
    """Make one call of each kind. Request the embedding in parallel with the turns.

    Each start of OpenClaw takes seconds.
    """
    seen = len(provider_log())
    replies: dict[str, str] = {}
    embedding = (
        *("env", f"OPENAI_API_KEY={OPENAI_KEY}", "OPENCLAW_STATE_DIR=/tmp/embedding", "node", "dist/index.js"),
        *("infer", "embedding", "create", "--provider", "openai", "--text", MARKS["plain"], "--json"),
    )
    with connections() as found, ThreadPoolExecutor(1) as pool:
        plain = pool.submit(in_gateway, *embedding)
        replies["websocket"] = agent_turn(f"Please answer {MARKS['websocket']}", WEBSOCKET_MODEL)
        replies["stream"] = agent_turn(f"Please answer {MARKS['stream']}")
    replies["plain"] = plain.result()
    return Calls(found, replies, provider_log()[seen:])
