"""`egress ui` as a process on loopback, for tests and the demo."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import urlencode, urlsplit

from tests.support.proxy_process import ADDON


class Answer(NamedTuple):
    """A response of the web page."""

    status: int
    headers: http.client.HTTPMessage
    text: str


class RunningUI:
    """An `egress ui` process that runs within the context. It shows the spool in a state directory."""

    def __init__(self, state: Path, environment: Mapping[str, str] | None = None) -> None:
        self.environment = {
            **(environment or os.environ),
            "PYTHONPATH": str(ADDON),
            "EGRESS_STATE_DIR": str(state),
            "EGRESS_UI_PORT": "0",
        }
        self.address = ""
        """The address of the web page with the login token, as the command printed it."""

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "openclaw_egress", "ui"], env=self.environment, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        printed = self.process.stdout.readline()
        if "http" not in printed:
            raise RuntimeError(f"egress ui ended with {self.process.wait(20)}")
        self.address = printed.split()[-1]
        return self

    def __exit__(self, *_: object) -> None:
        assert self.stop() == 0

    def stop(self) -> int:
        """Stop the process. Return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(20)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code

    @property
    def base(self) -> str:
        """Return the address of the web page without the login token."""
        return self.address.partition("/#")[0]

    @property
    def token(self) -> str:
        """Return the login token."""
        return self.address.rpartition("=")[2]

    @property
    def cookie(self) -> str:
        """Return the Cookie header that a logged-in browser sends."""
        return f"egress_ui_{urlsplit(self.base).port}={self.token}"

    def get(self, path: str, **headers: str) -> Answer:
        """Send a GET request with the login cookie. Return the response. ``Cookie=""`` omits the cookie."""
        return self.request("GET", path, headers={"Cookie": self.cookie, **headers})

    def login(self, token: str, target: str = "/", **headers: str) -> Answer:
        """Submit the login form. Return the response."""
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        return self.request("POST", "/login", urlencode({"token": token, "target": target}), {**form, **headers})

    def request(self, method: str, path: str, body: str | None = None, headers: Mapping[str, str] = {}) -> Answer:
        """Send a request and return the response. Omit headers whose value is empty."""
        connection = http.client.HTTPConnection(urlsplit(self.base).netloc, timeout=20)
        names = {name.replace("_", "-"): value for name, value in headers.items() if value}
        try:
            connection.request(method, path, body, names)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read().decode())
        finally:
            connection.close()
