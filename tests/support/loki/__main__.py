"""Command `python -m tests.support.loki`: run the Loki fake. It prints `ready PORT` and serves until it is stopped."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from pathlib import Path

from .fake import FakeLoki
from .server import NAME


def main() -> int:
    """Read the options and serve. Return 0 after SIGINT or SIGTERM, 1 if it cannot listen or read its data."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.loki", description=NAME)
    parser.add_argument("--listen", default="127.0.0.1", metavar="ADDR", help="address to listen on; default 127.0.0.1")
    parser.add_argument("--port", default=3100, type=int, help="port to listen on; default 3100; 0: any free port")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FILE",
        help="file that stores accepted records across restarts; default: memory only",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="YAML file to return from GET /config, instead of the default configuration",
    )
    parser.add_argument("--copy-to", metavar="URL", help="forward accepted pushes to this OTLP destination")
    options = parser.parse_args()
    try:
        config = options.config.read_text() if options.config else None
        loki = FakeLoki(options.port, options.listen, options.data, config=config, copy_to=options.copy_to)
    except (OSError, ValueError, KeyError) as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(f"ready {loki.port}", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        loki.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
