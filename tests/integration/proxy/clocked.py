"""A proxy with a clock that a test can set. The file ``$CLOCK_FILE`` contains the clock's offset in seconds.

``python clocked.py`` starts the proxy like ``egress run``; ``mitmdump -s clocked.py`` starts it in stock mitmdump.
"""

import datetime
import os
import sys
from pathlib import Path

from openclaw_egress.certificates import utc_now


def clock() -> datetime.datetime:
    return utc_now() + datetime.timedelta(seconds=float(Path(os.environ["CLOCK_FILE"]).read_text()))


if __name__ == "__main__":
    import logging

    from openclaw_egress.app.launcher import serve
    from openclaw_egress.app.service import Service
    from openclaw_egress.settings import Settings

    logging.basicConfig(level=logging.INFO)
    sys.exit(serve(Service(Settings.load(), clock)))
else:
    from openclaw_egress.app.mitmdump_addon import StockAddon

    addons = [StockAddon(clock)]
