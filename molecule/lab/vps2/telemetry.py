"""Sink for the gateway's OTLP traces and metrics. It responds to every POST with 200, and logs one JSON line for each.

For example:

{"time": 1790000000.1, "port": 4318, "method": "POST", "path": "/v1/traces", "size": 431, "peer": "10.0.0.1"}
"""

from __future__ import annotations

import argparse
import http.server
import json
import threading
import time
from pathlib import Path


def handler(log: Path) -> type[http.server.BaseHTTPRequestHandler]:
    """Return a request handler class that logs each request in ``log``."""
    writing = threading.Lock()

    class Sink(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            entry = {
                "time": time.time(),
                "port": self.server.server_address[1],
                "method": self.command,
                "path": self.path,
                "size": self._body(),
                "peer": self.client_address[0],
            }
            with writing, log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def _body(self) -> int:
            """Read the body. Return its size in bytes."""
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return len(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            total = 0
            while size := int(self.rfile.readline().split(b";")[0], 16):
                total += len(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return total

        def log_message(self, *_: object) -> None:
            """Print nothing, because the log file already has each request."""

    return Sink


def main() -> None:
    parser = argparse.ArgumentParser(description="Accept OTLP over HTTP, and log each request.")
    parser.add_argument("--listen", required=True, help="address to listen on")
    parser.add_argument("--log", type=Path, required=True, help="append one JSON line per request to this file")
    parser.add_argument("ports", type=int, nargs="+")
    arguments = parser.parse_args()
    arguments.log.touch()
    servers = [
        http.server.ThreadingHTTPServer((arguments.listen, port), handler(arguments.log)) for port in arguments.ports
    ]
    for server in servers[1:]:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    servers[0].serve_forever()


if __name__ == "__main__":
    main()
