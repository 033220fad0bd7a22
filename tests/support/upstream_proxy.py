"""A test double for the upstream proxy: a CONNECT proxy on loopback, like that of a corporate network."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self


@dataclass
class ConnectProxy:
    """A CONNECT proxy that runs in a thread and resolves names with its own table. It stores the head of each request.

    Args:
        hosts: addresses of the names that it knows. It responds with 502 to other names.
        credentials: USER:PASSWORD that it requires.
        certificate: PEM file with certificate and key, for a proxy that clients reach over TLS.
        response: head to send instead of its own response; empty to close the connection without one.
        greeting: bytes to send in the same packet as the response to CONNECT.
    """

    hosts: Mapping[str, str] = field(default_factory=dict)
    credentials: str = ""
    certificate: str = ""
    response: bytes | None = None
    greeting: bytes = b""
    heads: list[bytes] = field(default_factory=list)
    port: int = 0

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="connect-proxy", daemon=True)
        self._thread.start()
        assert self._started.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Close the listener and all connections."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(20)

    @property
    def targets(self) -> list[str]:
        """Return the target of each request, as it was sent."""
        return [head.split()[1].decode() for head in self.heads]

    @property
    def url(self) -> str:
        """Return the URL of the proxy."""
        return f"{'https' if self.certificate else 'http'}://127.0.0.1:{self.port}"

    def _run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        context = None
        if self.certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate)
        server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, ssl=context)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._serve_client(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._tunnel(reader, writer)
        finally:
            writer.close()

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        if self.response is not None:
            writer.write(self.response)
            return
        if self.credentials:
            wanted = b"Basic " + base64.b64encode(self.credentials.encode())
            name = b"proxy-authorization:"
            given = [line[len(name) :].strip() for line in head.split(b"\r\n") if line.lower().startswith(name)]
            if given != [wanted]:
                writer.write(b'HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm="corp"\r\nContent-Length: 0\r\n\r\n')
                return
        host, _, port = head.split()[1].decode().rpartition(":")
        address = self.hosts.get(host, host if host.replace(".", "").isdigit() else "")
        try:
            if not address:
                raise OSError
            upstream, sink = await asyncio.open_connection(address, int(port))
        except OSError:
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            return
        writer.write(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 corp\r\n\r\n" + self.greeting)
        copies = [self._loop.create_task(_copy(*pair)) for pair in ((reader, sink), (upstream, writer))]
        try:
            await asyncio.wait(copies)
        finally:
            sink.close()
            for copy in copies:
                copy.cancel()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, RuntimeError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
        else:
            writer.close()
