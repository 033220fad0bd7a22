"""Fake provider and client for tests of WebSockets over TLS. A test sets `talk`, the function that serves a connection.

Both run in one event loop, in a separate thread. Do not use the synchronous API of `websockets`: it reads and writes
one TLS connection in two threads, which OpenSSL does not allow. Only Python 3.13.4 and later lock the connection
(python/cpython issue 134698).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Self

from websockets.asyncio.client import connect
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from tests.support.llm_providers import make_certificates

SECONDS = 30


class Loop:
    """An event loop in a separate thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def run[Result](self, work: Coroutine[Any, Any, Result], seconds: float = SECONDS * 2) -> Result:
        """Run a coroutine in the loop and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(seconds)


_LOOP = Loop()


class Socket:
    """One end of a WebSocket, with blocking methods for tests."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def send(self, message: Any) -> None:
        """Send a message. If `message` is an iterable, send its items as the fragments of one message."""
        _LOOP.run(self.connection.send(message))

    def recv(self, **options: Any) -> Any:
        """Wait for the next message. Return it."""
        return _LOOP.run(asyncio.wait_for(self.connection.recv(**options), SECONDS))

    def event(self) -> dict[str, Any]:
        """Wait for the next message. Return it, parsed from JSON."""
        return dict(json.loads(self.recv()))

    def __iter__(self) -> Iterator[Any]:
        """Yield the messages until the connection is closed."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                yield _LOOP.run(self.connection.recv(), SECONDS * 10)

    def fragments(self) -> Iterator[Any]:
        """Yield the fragments of the next message as they arrive."""
        parts = aiter(self.connection.recv_streaming())
        with contextlib.suppress(ConnectionClosed, StopAsyncIteration):
            while True:
                yield _LOOP.run(_next(parts), SECONDS * 10)

    def raw(self, data: bytes) -> None:
        """Write bytes to the connection without WebSocket framing."""
        _LOOP.loop.call_soon_threadsafe(self.connection.transport.write, data)

    def abort(self) -> None:
        """Close the TCP connection without a close frame."""
        _LOOP.loop.call_soon_threadsafe(self.connection.transport.abort)

    def close(self, code: int = 1000) -> None:
        """Close the connection with a close frame."""
        _LOOP.run(self.connection.close(code))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


async def _next(parts: Any) -> Any:
    return await anext(parts)


def dial(url: str, **options: Any) -> Socket:
    """Open a WebSocket as a client."""

    async def opened() -> Connection:
        limits = {"max_size": None, "ping_interval": None, "close_timeout": 5, "open_timeout": SECONDS}
        return await connect(url, **limits, **options)

    return Socket(_LOOP.run(opened()))


class WebSocketProvider:
    """The fake provider. `talk` handles each connection; `received` holds the messages that `talk` passes to `note`.

    It refuses handshakes for the path `/refuse`, and selects the first subprotocol that a client offers.
    """

    def __init__(self, directory: Path, *, tls: bool = True) -> None:
        self.ca_file, cert, key = make_certificates(directory)
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) if tls else None
        if self._context is not None:
            self._context.load_cert_chain(cert, key)
        self.talk: Callable[[Socket], None] = echo
        self.forge: Callable[..., None] | None = None
        """A function that changes the handshake response. Its arguments: the connection, the request, the response."""
        self.received: list[Any] = []
        self.changed = threading.Condition()
        self.errors: list[BaseException] = []
        self.port = 0

    async def _serve(self) -> Server:
        return await serve(
            self._handle,
            "127.0.0.1",
            0,
            ssl=self._context,
            max_size=None,
            ping_interval=None,
            close_timeout=2,
            process_request=_refuse,
            process_response=lambda *found: self.forge(*found) if self.forge is not None else None,
            select_subprotocol=lambda _, offered: offered[0] if offered else None,
        )

    async def _handle(self, connection: ServerConnection) -> None:
        await asyncio.to_thread(self._talk, Socket(connection))

    def _talk(self, socket: Socket) -> None:
        try:
            with contextlib.suppress(ConnectionClosed):
                self.talk(socket)
        except BaseException as error:
            self.errors.append(error)
            raise

    def note(self, message: Any) -> None:
        """Add a message to `received`."""
        with self.changed:
            self.received.append(message)
            self.changed.notify_all()

    def wait_for(self, number: int) -> list[Any]:
        """Wait until `received` has at least this number of messages. Return all of them."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.received) >= number, SECONDS), self.received
            return list(self.received)

    def __enter__(self) -> Self:
        self._server = _LOOP.run(self._serve())
        self.port = next(iter(self._server.sockets)).getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        _LOOP.loop.call_soon_threadsafe(self._server.close)


def _refuse(connection: ServerConnection, request: Request) -> Response | None:
    return connection.respond(401, "no\n") if request.path.startswith("/refuse") else None


def echo(socket: Socket) -> None:
    """Send each message back."""
    for message in socket:
        socket.send(message)


def response_events(name: str, text: str, usage: dict[str, Any], **more: Any) -> list[str]:
    """Return the events of one response of the Responses API, as OpenAI sends them on a WebSocket.

    Source: the types of `ResponsesServerEvent` in the SDK `openai`.
    """
    response = {"id": name, "object": "response", "model": "gpt-6-2026-05-01", "output": []}
    message = {"type": "message", "id": f"msg_{name}", "role": "assistant"}
    done = {**message, "content": [{"type": "output_text", "text": text}]}
    end = {**response, "status": "completed", "usage": usage, "output": [done]}
    events = [
        {"type": "response.created", "response": {**response, "status": "in_progress"}},
        {"type": "response.output_item.added", "output_index": 0, "item": {**message, "content": []}},
        *(
            {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": word}
            for word in text.split(" ")
        ),
        {"type": "response.output_item.done", "output_index": 0, "item": done},
        {"type": "response.completed", "response": end},
    ]
    return [json.dumps({**event, "sequence_number": number, **more}) for number, event in enumerate(events)]
