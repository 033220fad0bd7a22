"""Background responses of OpenAI's Responses API whose usage is already counted.

A client can retrieve a background response any number of times, and each copy repeats the usage. For each class, the
usage counts only in the first record, so that totals, budgets and metrics include it once. Each class has a separate
list. With a shared list, a class could retrieve another class's responses first and thus hide their usage. It could
also fill the list with its own responses. The responses of other classes would then be dropped, and their usage counted
again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

MAX_RESPONSES = 10_000
"""Maximum number of responses to remember for each class, because an agent can create any number of them."""


class Retrieved(NamedTuple):
    """A background response, and the class that retrieved it."""

    class_name: str
    host: str
    """Host name in lower case."""
    response_id: str


class CountedResponses:
    """The counted responses. Call its methods only on the event loop.

    Args:
        known: the responses that a previous process has counted, oldest first.
    """

    def __init__(self, known: Iterable[Retrieved] = ()) -> None:
        self._of_class: dict[str, dict[Retrieved, None]] = {}
        for response in known:
            self.add(response)

    def __contains__(self, response: Retrieved) -> bool:
        return response in self._of_class.get(response.class_name, ())

    def add(self, response: Retrieved) -> None:
        """Mark a response as counted. If its class has more than `MAX_RESPONSES`, drop the oldest one."""
        counted = self._of_class.setdefault(response.class_name, {})
        counted[response] = None
        if len(counted) > MAX_RESPONSES:
            del counted[next(iter(counted))]
