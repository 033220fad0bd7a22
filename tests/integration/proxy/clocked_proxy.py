"""A running proxy with a clock that a test can move (see `clocked`)."""

import datetime
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tests.support.proxy_process import RunningProxy


class ClockedProxy(RunningProxy):
    """A proxy whose clock is ahead of the machine's clock by :attr:`ahead`."""

    def __init__(
        self, directory: Path, ports: Sequence[int], upstream_ca: Path, kind: Literal["lean", "stock"] = "lean"
    ) -> None:
        self._file = directory / "clock"
        self.ahead = datetime.timedelta()
        super().__init__(directory, ports, upstream_ca, kind, CLOCK_FILE=str(self._file))

    @property
    def command(self) -> list[str]:
        script = str(Path(__file__).with_name("clocked.py"))
        if self.kind == "lean":
            return [sys.executable, script]
        return [script if word.endswith("otel_logger.py") else word for word in super().command]

    @property
    def ahead(self) -> datetime.timedelta:
        return datetime.timedelta(seconds=float(self._file.read_text()))

    @ahead.setter
    def ahead(self, value: datetime.timedelta) -> None:
        temporary = self._file.with_suffix(".new")
        temporary.write_text(str(value.total_seconds()))
        temporary.replace(self._file)

    @property
    def now(self) -> datetime.datetime:
        return datetime.datetime.now(datetime.UTC) + self.ahead
