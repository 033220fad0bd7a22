"""The background responses whose usage is already counted.

A client can retrieve a background response any number of times, and each copy repeats the usage. Only the first record
of a class counts, so the totals, budgets and metrics of the class hold the usage once. Each class has a separate list.
With a common list, a class could retrieve another class's responses first and so hide their usage. It could also fill
the list, so that the usage of forgotten responses counts again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

MAX_RESPONSES = 10_000
"""Number of responses of a class that are remembered; the oldest are forgotten first. Agents can create any number."""


class Retrieved(NamedTuple):
    """A background response, and the class that retrieved it."""

    class_name: str
    host: str
    """Host name in lower case."""
    response_id: str


class CountedResponses:
    """The counted responses. Only the event loop calls its methods.

    Args:
        known: the responses that a previous process has counted, the oldest first.
    """

    def __init__(self, known: Iterable[Retrieved] = ()) -> None:
        self._of_class: dict[str, dict[Retrieved, None]] = {}
        for response in known:
            self.add(response)

    def __contains__(self, response: Retrieved) -> bool:
        return response in self._of_class.get(response.class_name, ())

    def add(self, response: Retrieved) -> None:
        """Remember a response as counted; forget the oldest one of its class above `MAX_RESPONSES`."""
        counted = self._of_class.setdefault(response.class_name, {})
        counted[response] = None
        if len(counted) > MAX_RESPONSES:
            del counted[next(iter(counted))]
