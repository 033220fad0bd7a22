"""The responses in the background whose usage is counted.

Any number of requests can return such a response, each with its usage. The first of them counts, so totals, budgets and
metrics hold it once.
"""

from __future__ import annotations

from collections.abc import Iterable

MAX_RESPONSES = 10_000
"""Number of responses that are remembered; the oldest are forgotten first. Agents can create any number of them."""


class CountedResponses:
    """The hosts and IDs of the counted responses. Only the event loop calls its methods.

    Args:
        known: hosts and IDs that a former process has counted, the oldest first.
    """

    def __init__(self, known: Iterable[tuple[str, str]] = ()) -> None:
        self._counted: dict[tuple[str, str], None] = {}
        for host, response_id in known:
            self.add(host, response_id)

    def add(self, host: str, response_id: str) -> bool:
        """Remember a response. Return whether it is new."""
        key = host, response_id
        if key in self._counted:
            return False
        self._counted[key] = None
        if len(self._counted) > MAX_RESPONSES:
            del self._counted[next(iter(self._counted))]
        return True
