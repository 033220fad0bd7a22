"""Generator for the table of host groups in docs/providers.md. Its only source is `policy/host_groups.py`.

`make docs` writes the table. A test checks that the committed table is current.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from openclaw_egress.llm.registry import provider_of
from openclaw_egress.policy.host_groups import GROUPS, hosts_of
from tools.documents import with_table

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "providers.md"


def table() -> list[str]:
    """Return the lines of the table of host groups."""
    rows = ["| group | hosts | `gen_ai.provider.name` |", "|---|---|---|"]
    for group, hosts in GROUPS.items():
        names = dict.fromkeys(provider_of(host.removeprefix("*.")) for host in hosts_of(group) or ())
        rows.append(f"| `@{group}` | {_code(hosts)} | {_code(name for name in names if name)} |")
    return rows


def _code(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def updated() -> str:
    """Return the text of docs/providers.md with the current table."""
    return with_table(DOCUMENT.read_text(), "groups", table(), DOCUMENT)


def main() -> int:
    """Write the table into docs/providers.md."""
    DOCUMENT.write_text(updated())
    return 0


if __name__ == "__main__":
    sys.exit(main())
