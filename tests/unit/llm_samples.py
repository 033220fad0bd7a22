"""Sample responses of APIs that the fake provider does not serve.

`tests/unit/llm/samples/NAME.json` contains the events of a stream of the API with this name, as a JSON array. Tests use
the last event as a plain response, too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from openclaw_egress.llm.model import Api

_DIRECTORY = Path(__file__).parent / "llm/samples"


def samples_of(api: Api) -> list[dict[str, Any]]:
    """Return the sample events of an API, or an empty list if the API has no samples."""
    file = _DIRECTORY / f"{api.name}.json"
    found: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    return found


def sampled() -> set[str]:
    """Return the names of the APIs that have samples."""
    return {file.stem for file in _DIRECTORY.glob("*.json")}
