"""A decorator for hooks that must fail closed: if a hook raises an exception, the request or connection is refused.

mitmproxy itself fails open: it logs the exception and then continues.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from mitmproxy import http
from mitmproxy.exceptions import AddonHalt

from openclaw_egress.policy.codes import Code
from openclaw_egress.policy.model import Decision
from openclaw_egress.proxy.error_responses import refusal

FAILED = Decision.denial(Code.DECISION_FAILED)

_FAILED_RESPONSE = refusal(
    503,
    class_name="?",
    destination="?",
    rule=FAILED.rule,
    reason=FAILED.reason,
    remedy="See the proxy's log.",
)


def fails_closed[Owner, Data](
    refuse: Callable[[Owner, Data, Exception], None],
) -> Callable[[Callable[[Owner, Data], Any]], Callable[[Owner, Data], Any]]:
    """Return a decorator that calls ``refuse(self, data, exception)`` if the decorated hook raises an exception.

    ``data`` is the hook's argument.
    """

    def decorate(hook: Callable[[Owner, Data], Any]) -> Callable[[Owner, Data], Any]:
        @functools.wraps(hook)
        async def waits(self: Owner, data: Data) -> None:
            try:
                await hook(self, data)
            except Exception as error:
                refuse(self, data, error)

        @functools.wraps(hook)
        def returns(self: Owner, data: Data) -> None:
            try:
                hook(self, data)
            except AddonHalt:
                raise
            except Exception as error:
                refuse(self, data, error)

        return waits if inspect.iscoroutinefunction(hook) else returns

    return decorate


def respond_failed(flow: http.HTTPFlow) -> None:
    """Set a 503 response. Use only constants, so that this function cannot fail."""
    flow.request.stream = False  # mitmproxy raises an error if a hook sets a response while the request streams
    flow.request.headers.pop("expect", None)  # do not request the body of a refused request with "100 Continue"
    flow.response = _FAILED_RESPONSE.copy()


def guarded_hooks(cls: type) -> list[str]:
    """Return the names of an add-on's public methods, which are its hooks. Tests inject a fault into each of them."""
    return [name for name in vars(cls) if not name.startswith("_") and callable(getattr(cls, name))]
