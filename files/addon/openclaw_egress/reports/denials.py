"""Functions that describe a group of denials."""

from __future__ import annotations

from collections.abc import Sequence

from openclaw_egress.recording.denials import DenialGroup

CLIENTS_SHOWN = 3


def short_clients(clients: Sequence[str]) -> str:
    """Return a text with the first clients and, if there are more, their number: ``10.0.0.5 and 3 more``."""
    more = len(clients) - CLIENTS_SHOWN
    return ", ".join(clients[:CLIENTS_SHOWN]) + (f" and {more} more" if more > 0 else "")


def effect(group: DenialGroup) -> str:
    """Return a text that says whether the proxy refused the requests or only reported them."""
    if group.enforced and group.reported:
        return f"{group.enforced} refused, {group.reported} reported"
    return "refused" if group.enforced else "reported"
