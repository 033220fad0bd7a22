"""Evidence of requests and packets that arrived at hosts outside the proxy.

It does not depend on the client's report.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lab.hosts import in_proxy, on, whole_lines

from tests.security.inside.core import Technique
from tests.security.inside.records import FORGED

LOGS = {"canary": "/var/log/canary.jsonl", "names": "/var/log/dnsmasq.log", "providers": "/var/log/provider.jsonl"}

# Characters that control a terminal: C0, C1, and bidirectional marks.
OBEYED = {*map(chr, (*range(9), *range(11, 32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A)))}


@dataclass(frozen=True)
class Seen:
    """Lines logged outside the proxy since a call of :func:`here`, by name of the log; None for a missing log."""

    lines: Mapping[str, list[str] | None]

    @property
    def missing(self) -> list[str]:
        """Return the logs that are missing; without them a result proves nothing."""
        return [LOGS[name] for name, lines in self.lines.items() if lines is None]

    def evidence(
        self, technique: Technique, place: str, token: str, inspected: str, recorded: Container[str]
    ) -> list[str]:
        """Return evidence of a bypass: the token in a log of the canary, DNS or a site, or an unrecorded request."""
        found = [f"the canary received {_short(line)}" for line in self._of("canary") if token in line]
        if place not in technique.lawful:
            found += [f"looked up: {_short(line)}" for line in self._of("names") if token in line and "query" in line]
            found += [
                f"a site received a request for {entry['host']}{entry['path'][:60]}"
                for entry in map(json.loads, self._of("providers"))
                if token in str(entry["host"])
            ]
        return found + [
            f"not recorded: {entry['path'][:80]}"
            for entry in map(json.loads, self._of("providers"))
            if inspected and token in entry["path"] and entry["host"] == inspected and entry["path"] not in recorded
        ]

    def unexplained(self, tokens: Iterable[str]) -> list[str]:
        """Return the lines of the canary's log that contain none of the tokens: no technique explains these packets."""
        known = tuple(tokens)
        return [line for line in self._of("canary") if not any(token in line for token in known)]

    def _of(self, name: str) -> list[str]:
        return self.lines[name] or []


def _short(line: str) -> str:
    return line if len(line) < 160 else f"{line[:160]}…"


def here() -> dict[str, int]:
    """Return the current number of lines of each log on the fake internet; -1 for a missing log."""
    return {name: _count(path) for name, path in LOGS.items()}


def _count(path: str) -> int:
    return int(on("internet", "sh", "-c", f"test -e {path} && wc -l <{path} || echo -1"))


def since(before: Mapping[str, int]) -> Seen:
    """Return the lines written to each log since :func:`here` returned ``before``."""
    return Seen(
        {
            name: None if lines < 0 else whole_lines(on("internet", "tail", "-n", f"+{lines + 1}", LOGS[name]))
            for name, lines in before.items()
        }
    )


def records(host: str = "*") -> list[dict[str, Any]]:
    """Return the newest records for a host from `egress records --json`. Mark each line that is not JSON as forged."""
    text = in_proxy("egress", "records", "--json", "--host", host, "--limit", "5000")
    return list(map(_record, whole_lines(text)))


def _record(line: str) -> dict[str, Any]:
    try:
        return dict(json.loads(line))
    except (ValueError, TypeError):
        return {"class": FORGED, "line": line}


def recorded(inspected: str) -> set[str]:
    """Return the recorded paths (with query) of an inspected host; an empty set for an empty host name."""
    return {record.get("url", "").partition(inspected)[2] for record in records(inspected)} if inspected else set()


def forged() -> list[str]:
    """Return forged entries among the records, and control characters in the plain-text output of commands."""
    found = [str(record) for record in records() if record.get("class") == FORGED]
    for command in (("records", "--limit", "5000"), ("denials", "--since", "1h")):
        said = in_proxy("egress", *command)
        obeyed = sorted({hex(ord(char)) for char in said if char in OBEYED})
        if obeyed:
            found.append(f"`egress {' '.join(command)}` prints {obeyed}")
    return found
