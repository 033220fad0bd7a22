"""The script for a stock mitmproxy: ``mitmdump --mode regular --listen-port 8080 -s otel_logger.py``.

The implementation is in the package beside this file; see ``openclaw_egress/proxy/stock.py``.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from openclaw_egress.proxy.stock import StockAddon

addons = [StockAddon()]
