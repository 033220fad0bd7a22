"""The addresses of the machine that the proxy runs on.

A proxy in a container sees only its own interfaces. The role therefore writes the host's addresses, including public
ones, to a file (``EGRESS_HOST_ADDRESSES_FILE``): one address per line, ``#`` begins a comment. The proxy reloads the
file when it changes.
"""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from pathlib import Path

from openclaw_egress.policy.destination import Address
from openclaw_egress.policy.model import Policy, PolicyError
from openclaw_egress.settings import without_mapping

_REMEDY = "write one IP address per line (with Ansible: site.yml)"


def with_host_addresses(policy: Policy, file: Path | None) -> Policy:
    """Return the policy with the addresses of a file, which its address guard then refuses.

    Raises:
        PolicyError: the file is missing, or a line of it is not an address.
    """
    return policy if file is None else replace(policy, host_addresses=_read(file))


def _read(file: Path) -> frozenset[Address]:
    try:
        text = file.read_text("utf-8")
    except OSError as error:
        raise PolicyError(str(file), None, f"cannot be read: {error.strerror}", _REMEDY) from None
    except UnicodeError:
        raise PolicyError(str(file), None, "is not text in UTF-8", _REMEDY) from None
    found: set[Address] = set()
    for number, line in enumerate(text.splitlines(), 1):
        written = line.partition("#")[0].strip()
        if not written:
            continue
        try:
            address = ipaddress.ip_address(written)
        except ValueError:
            raise PolicyError(str(file), number, f"{written[:80]!r} is not an IP address", _REMEDY) from None
        # A zone only selects the local interface; no client can name one.
        found.add(without_mapping(ipaddress.ip_address(str(address).partition("%")[0])))
    return frozenset(found)
