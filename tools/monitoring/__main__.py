"""Write the dashboards and the alert rules into the role loki_otlp: `python -m tools.monitoring`, or `make docs`."""

from __future__ import annotations

import json
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from tools.monitoring.alerts import rules_text
from tools.monitoring.dashboards import dashboards

FILES = Path(__file__).resolve().parents[2] / "roles" / "loki_otlp" / "files"
"""Directory of the generated files."""


def generated() -> dict[Path, str]:
    """Return the text of each generated file by its path."""
    texts = {
        FILES / "grafana" / f"{name}.json": json.dumps(board, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"
        for name, board in dashboards().items()
    }
    return texts | {FILES / "prometheus" / "openclaw_egress.rules.yml": rules_text()}


def main() -> None:
    """Write the dashboards and the alert rules into the role."""
    for path, text in generated().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    main()
