"""A fake of Loki's HTTP API, not a real Loki.

It is for tests only. It accepts OTLP logs, responds to queries, and refuses the requests that a real Loki with default
limits refuses, with the same messages (tests/contract/loki/). It needs only the standard library. To decode zstd, it
needs Python 3.14 or the package backports.zstd or zstandard.

    with FakeLoki() as loki:            # loki.url, loki.faults, loki.pushes, loki.lines()
    python -m tests.support.loki --listen 10.0.0.2 --port 3100 --data /var/lib/loki.jsonl
"""

from .fake import FakeLoki, Push
from .faults import Fault, Faults
from .limits import Limits

__all__ = ["FakeLoki", "Fault", "Faults", "Limits", "Push"]
