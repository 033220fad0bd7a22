"""The responses in the background whose usage is counted.

Any number of requests can return such a response, each with its usage. The first record of a class counts, so the
totals, budgets and metrics of the class hold it once. Each class has a memory of its own: otherwise a class could
retrieve another's responses first and so hide their usage, or fill the memory so that they count again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

MAX_RESPONSES = 10_000
"""Number of responses of a class that are remembered; the oldest are forgotten first. Agents can create any number."""


class Retrieved(NamedTuple):
    """A response in the background, and the class that retrieved it."""

    class_name: str
    host: str
    """In lower case."""
    response_id: str


class CountedResponses:
    """The counted responses. Only the event loop calls its methods.

    Args:
        known: the responses that a former process has counted, the oldest first.
    """

    def __init__(self, known: Iterable[Retrieved] = ()) -> None:
        self._of_class: dict[str, dict[Retrieved, None]] = {}
        for response in known:
            self.add(response)

    def __contains__(self, response: Retrieved) -> bool:
        return response in self._of_class.get(response.class_name, ())

    def add(self, response: Retrieved) -> None:
        """Remember a response."""
        counted = self._of_class.setdefault(response.class_name, {})
        counted[response] = None
        if len(counted) > MAX_RESPONSES:
            del counted[next(iter(counted))]
