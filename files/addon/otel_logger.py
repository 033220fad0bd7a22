"""The entry script for an unmodified mitmproxy: ``mitmdump --mode regular --listen-port 8080 -s otel_logger.py``.

The implementation is in the package next to this file; see ``openclaw_egress/app/mitmdump_addon.py``.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from openclaw_egress.app.mitmdump_addon import StockAddon

addons = [StockAddon()]
