"""Clients that send requests through the proxy, or the provider behind it. Benchmarks run each in its own process.

    python -m tests.benchmarks.load CLIENTS SECONDS PROXY_URL https://HOST:PORT/PATH BODY_FILE CA_FILE
    python -m tests.benchmarks.load --provider CHAIN_FILE KEY_FILE ANSWER_FILE

Each client keeps one connection open, and sends the same request again as soon as it has the response. At the end, the
command prints the total ``{"requests": …, "seconds": …}``. It exits with 1 if a status is not 200. The provider prints
its port, responds to each request with the content of ANSWER_FILE, and runs until SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time
import urllib.parse
from pathlib import Path

HEAD_ENDS = b"\r\n\r\n"


async def response(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Read one HTTP message with Content-Length. Return its status, which is 0 for a request, and its body."""
    head = (await reader.readuntil(HEAD_ENDS)).lower()
    _, _, rest = head.partition(b"content-length:")
    body = await reader.readexactly(int(rest.split(b"\r\n")[0])) if rest else b""
    return int(head.split(b" ", 2)[1]) if head.startswith(b"http/") else 0, body


async def client(proxy: str, target: str, request: bytes, context: ssl.SSLContext, end: float) -> int:
    """Open a tunnel, and send requests until the time ``end``. Return the number of requests."""
    to, host = urllib.parse.urlsplit(proxy), urllib.parse.urlsplit(target)
    reader, writer = await asyncio.open_connection(to.hostname, to.port)
    writer.write(f"CONNECT {host.netloc} HTTP/1.1\r\nHost: {host.netloc}\r\n\r\n".encode())
    head = await reader.readuntil(HEAD_ENDS)
    if b" 200 " not in head:
        raise RuntimeError(f"the proxy refused the tunnel: {head!r}")
    await writer.start_tls(context, server_hostname=host.hostname)
    sent = 0
    while time.monotonic() < end:
        writer.write(request)
        status, body = await response(reader)
        if status != 200:
            raise RuntimeError(f"status {status}: {body[:300]!r}")
        sent += 1
    writer.close()
    return sent


async def run_clients(clients: int, seconds: float, proxy: str, target: str, body: bytes, ca: str) -> dict[str, float]:
    """Run clients in parallel. Return the number of requests, and the elapsed time in seconds."""
    host = urllib.parse.urlsplit(target)
    head = f"POST {host.path} HTTP/1.1\r\nHost: {host.netloc}\r\nx-api-key: k\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    context = ssl.create_default_context(cafile=ca)
    began = time.monotonic()
    counts = await asyncio.gather(*(client(proxy, target, request, context, began + seconds) for _ in range(clients)))
    return {"requests": sum(counts), "seconds": time.monotonic() - began}


async def provide(chain: str, key: str, answer: bytes) -> None:
    """Serve as the provider: respond to every request with the body ``answer``."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain, key)
    data = (
        f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(answer)}\r\n\r\n".encode() + answer
    )

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await response(reader)
                writer.write(data)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context, limit=2**20)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    """Run the clients, or with `--provider` the provider."""
    if sys.argv[1] == "--provider":
        asyncio.run(provide(sys.argv[2], sys.argv[3], Path(sys.argv[4]).read_bytes()))
        return
    clients, seconds, proxy, target, body, ca = sys.argv[1:]
    print(
        json.dumps(asyncio.run(run_clients(int(clients), float(seconds), proxy, target, Path(body).read_bytes(), ca)))
    )


if __name__ == "__main__":
    main()
