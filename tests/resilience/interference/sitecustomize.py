"""Changes to Python in the proxy's process: slow name lookups, and a clock that a test can set.

At its start, Python imports a module with the name `sitecustomize` from PYTHONPATH. Lookups of names in
``slow.example`` take CHAOS_LOOKUP_SECONDS and then fail. The file CHAOS_CLOCK_FILE contains the wall clock's offset in
seconds.
"""

import os
import socket
import time
from typing import Any

_lookup = socket.getaddrinfo


def _slow(host: Any, *arguments: Any, **options: Any) -> Any:
    name = host.decode() if isinstance(host, bytes) else str(host)
    if name.endswith("slow.example"):
        time.sleep(float(os.environ.get("CHAOS_LOOKUP_SECONDS", "3")))
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    return _lookup(host, *arguments, **options)


socket.getaddrinfo = _slow

if _file := os.environ.get("CHAOS_CLOCK_FILE"):
    _time, _time_ns = time.time, time.time_ns

    def _offset() -> int:
        with open(_file) as file:  # noqa: PTH123 - import as little as possible this early
            return int(file.read() or 0)

    time.time = lambda: _time() + _offset()
    time.time_ns = lambda: _time_ns() + _offset() * 1_000_000_000
