"""Generator of the table of host groups in docs/providers.md. The only source is `policy/host_groups.py`.

`make docs` writes the table; a test compares it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from openclaw_egress.llm.registry import provider_of
from openclaw_egress.policy.host_groups import GROUPS, hosts_of

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "providers.md"
BEGIN, END = "<!-- groups: written by `make docs` -->", "<!-- end of groups -->"


def table() -> str:
    """Return the table between the two marker comments."""
    rows = ["| group | hosts | `gen_ai.provider.name` |", "|---|---|---|"]
    for group, hosts in GROUPS.items():
        names = dict.fromkeys(provider_of(host.removeprefix("*.")) for host in hosts_of(group) or ())
        rows.append(f"| `@{group}` | {_code(hosts)} | {_code(name for name in names if name)} |")
    return "\n".join([BEGIN, *rows, END])


def _code(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def updated() -> str:
    """Return the document's text with the current table.

    Raises:
        SystemExit: the document lacks the marker comments.
    """
    text = DOCUMENT.read_text()
    before, mark, rest = text.partition(BEGIN)
    if not mark or END not in rest:
        raise SystemExit(f"{DOCUMENT} lacks the marks {BEGIN} and {END}")
    return before + table() + rest.partition(END)[2]


def main() -> int:
    """Write the table."""
    DOCUMENT.write_text(updated())
    return 0


if __name__ == "__main__":
    sys.exit(main())
