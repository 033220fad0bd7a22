"""Stand-in for Loki's HTTP contract; not Loki.

A test's tool: it takes OTLP logs, answers queries and refuses what a real Loki with default limits was measured to
refuse, in the same words (tests/contract/loki/). Python alone, no other package; zstd where Python has it.

    with LokiStandIn() as loki:            # loki.url, loki.faults, loki.pushes, loki.lines()
    python -m tests.standins.loki --listen 10.0.0.2 --port 3100 --data /var/lib/standin.jsonl
"""

from .faults import Fault, Faults
from .limits import Limits
from .standin import LokiStandIn, Push

__all__ = ["Fault", "Faults", "Limits", "LokiStandIn", "Push"]
