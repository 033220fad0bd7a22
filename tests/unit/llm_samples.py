"""Sample responses of the APIs that the fake provider does not serve.

`tests/unit/llm/samples/NAME.json` is an array of objects, named after the API. Its objects are the events of a stream;
the last one is also read as a plain response.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from openclaw_egress.llm.model import Api

_DIRECTORY = Path(__file__).parent / "llm/samples"


def samples_of(api: Api) -> list[dict[str, Any]]:
    """Return the sample objects of an API; none if the fake provider serves it."""
    file = _DIRECTORY / f"{api.name}.json"
    found: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    return found


def sampled() -> set[str]:
    """Return the names of the APIs with samples."""
    return {file.stem for file in _DIRECTORY.glob("*.json")}
