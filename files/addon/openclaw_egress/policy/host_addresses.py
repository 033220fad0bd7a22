"""The addresses of the machine that the proxy runs on.

A proxy in a container sees only its own interfaces. The role therefore writes the host's addresses, including public
ones, to a file (``EGRESS_HOST_ADDRESSES_FILE``): one address per line, ``#`` begins a comment. The proxy reloads the
file when it changes. The kernel can replace temporary IPv6 addresses (RFC 8981) at any time. The file therefore
contains their /64 prefix, which covers all of them.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, replace
from pathlib import Path

from openclaw_egress.policy.destination import Address
from openclaw_egress.policy.model import Policy, PolicyError
from openclaw_egress.settings import without_mapping

_PREFIX = 64
_REMEDY = "write one IP address per line (with Ansible: site.yml)"


@dataclass(frozen=True)
class HostAddresses:
    """A host's addresses, and the prefixes of the temporary addresses that its kernel creates."""

    addresses: frozenset[Address]
    prefixes: frozenset[ipaddress.IPv6Network] = frozenset()

    def __contains__(self, ip: object) -> bool:
        """Return whether the host has the address, or its kernel may create it as a temporary address."""
        return ip in self.addresses or (
            isinstance(ip, ipaddress.IPv6Address) and any(ip in prefix for prefix in self.prefixes)
        )


def with_host_addresses(policy: Policy, file: Path | None) -> Policy:
    """Return a copy of the policy that contains the addresses in ``file``, so that the address guard refuses them.

    Raises:
        PolicyError: the file is missing, or a line of it is not an address.
    """
    return policy if file is None else replace(policy, host_addresses=_read(file))


def _read(file: Path) -> HostAddresses:
    try:
        text = file.read_text("utf-8")
    except OSError as error:
        raise PolicyError(str(file), None, f"the file cannot be read: {error.strerror}", _REMEDY) from None
    except UnicodeError:
        raise PolicyError(str(file), None, "the file is not UTF-8 text", _REMEDY) from None
    found: set[Address] = set()
    prefixes: set[ipaddress.IPv6Network] = set()
    for number, line in enumerate(text.splitlines(), 1):
        written = line.partition("#")[0].strip()
        if not written:
            continue
        try:
            if written.endswith(f"/{_PREFIX}"):
                prefixes.add(ipaddress.IPv6Network(written, strict=False))
                continue
            address = ipaddress.ip_address(written)
        except ValueError:
            wrong = f"{written[:80]!r} is not an IP address or an IPv6 prefix of length {_PREFIX}"
            raise PolicyError(str(file), number, wrong, _REMEDY) from None
        # Remove the zone (`%eth0`): it only selects a local interface, and no client can name it.
        found.add(without_mapping(ipaddress.ip_address(str(address).partition("%")[0])))
    return HostAddresses(frozenset(found), frozenset(prefixes))
