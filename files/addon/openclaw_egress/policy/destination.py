"""Destinations in one canonical form, and the address guard. Pure functions, which resolve no names.

Without a canonical form, a host could be allowed in one spelling and denied in another. Therefore
:func:`canonical_host` first converts every name and address from a client or from the policy. Rules, look-ups,
connections and records use only the canonical form.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import NamedTuple
from urllib.parse import urlsplit

import idna

type Address = IPv4Address | IPv6Address
type Network = IPv4Network | IPv6Network

MAX_NAME = 253  # The maximum of RFC 1035, section 2.3.4, for a name written without the final dot.
MAX_LABEL = 63


class DestinationError(ValueError):
    """The text is not a valid host and port. ``reason`` explains why, for people to read."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Destination:
    """Host and port of a request, in canonical form.

    Attributes:
        host: a name (lower case, A-labels, no final dot), or an address as :mod:`ipaddress` writes it, without
            brackets.
        address: the host as an address if it is a literal; else None.
        port: 1 to 65535.
    """

    host: str
    address: Address | None
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_destination(host: str, port: int) -> Destination:
    """Return the canonical destination of a client's request.

    Raises:
        DestinationError: the host or the port is not valid.
    """
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
        raise DestinationError(f"{port!r} is not a port (1 to 65535)")
    name, address = canonical_host(host)
    return Destination(name, address, port)


def split_url(url: str) -> tuple[str, str, int, str]:
    """Return the scheme, host, port, and path with query of a text such as ``https://host/path`` or ``host:port``.

    Raises:
        DestinationError: the text has no host and port.
    """
    try:
        parts = urlsplit(url if "://" in url else f"//{url}", scheme="https")
        port, host = parts.port, parts.hostname
    except ValueError as error:
        raise DestinationError(f"{url}: {error}") from None
    if port is None:
        port = {"https": 443, "http": 80, "wss": 443, "ws": 80}.get(parts.scheme)
    if not host or port is None:
        raise DestinationError(f"{url} has no host; write https://host/path or host:port")
    return parts.scheme, host, port, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


_FORBIDDEN = {"@": "user information", "%": "a percent escape", "/": "a slash", "\\": "a backslash"} | {
    char: repr(char) for char in "?#<>^|`{}\"'"
}
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?")
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+")
_OCTAL = re.compile(r"[0-7]+")


def canonical_host(host: str) -> tuple[str, Address | None]:
    """Return the canonical form of a host, and its address if it is a literal.

    Addresses are recognised in every spelling that ``inet_aton(3)`` and browsers accept (``127.1``, ``0x7f.1``,
    ``2130706433``, ``0177.0.0.1``): https://url.spec.whatwg.org/#concept-ipv4-parser. As in that standard, a host whose
    last label is a number must be a valid address. Names follow UTS #46 (non-transitional) and RFC 1123, and may also
    contain underscores.

    Raises:
        DestinationError: the host is empty, too long, or contains a character that no host may have.
    """
    if not host:
        raise DestinationError("the host is empty")
    if len(host) > 4 * MAX_NAME:
        raise DestinationError(f"the host is too long ({len(host)} characters)")
    bracketed = host.startswith("[") and host.endswith("]")
    text = host[1:-1] if bracketed else host
    if not bracketed and text.count(":") == 1:
        raise DestinationError(f"{host!r} has a colon; only a host is expected")
    if bracketed or ":" in text:
        ipv6 = _ipv6(text, host)
        return str(ipv6), ipv6
    name = _ascii(_refuse_characters(text))
    name = name.removesuffix(".")
    labels = name.split(".")
    if "" in labels:
        raise DestinationError(f"{host!r} has an empty label" if name else "the host is empty")
    if len(name) > MAX_NAME:
        raise DestinationError(f"the host name is too long ({len(name)} characters; {MAX_NAME} at most)")
    if _NUMBER.fullmatch(labels[-1]):
        ipv4 = _ipv4(labels, host)
        return str(ipv4), ipv4
    for label in labels:
        _check_label(label, host)
    return name, None


def _refuse_characters(text: str) -> str:
    for char in text:
        if char in _FORBIDDEN:
            raise DestinationError(f"{text!r} has {_FORBIDDEN[char]} where a host is expected")
        if char.isspace() or not char.isprintable():
            raise DestinationError(f"{text!r} has a space or control character in the host")
    return text


def _ascii(text: str) -> str:
    """Return the name in lower case with A-labels.

    Apply IDNA only to names that are not ASCII, because IDNA refuses some ASCII names that exist in DNS.
    """
    if text.isascii():
        return text.lower()
    try:
        mapped = idna.uts46_remap(text, std3_rules=False, transitional=False)
        mapped = re.sub("[\u3002\uff0e\uff61]", ".", mapped)
        labels = [label if label.isascii() else idna.alabel(label).decode("ascii") for label in mapped.split(".")]
    except (idna.IDNAError, UnicodeError) as error:
        raise DestinationError(f"{text!r} is not a valid international name ({error})") from None
    return _refuse_characters(".".join(labels)).lower()


def _check_label(label: str, host: str) -> None:
    if len(label) > MAX_LABEL:
        raise DestinationError(f"{host!r} has a label of {len(label)} characters ({MAX_LABEL} at most)")
    if not _LABEL.fullmatch(label):
        raise DestinationError(f"{label!r} in {host!r} is not a label of a host name")
    if label.startswith("xn--"):
        try:
            decoded = label[4:].encode("ascii").decode("punycode")
        except UnicodeError:
            decoded = ""
        if not decoded or label.endswith("-") or any("\x7f" <= char <= "\x9f" for char in decoded):
            raise DestinationError(f"{label!r} in {host!r} is not Punycode")


def _ipv6(text: str, host: str) -> IPv6Address:
    if "%" in text:
        raise DestinationError(f"{host!r} has a zone id, which is valid on one machine only")
    try:
        return IPv6Address(text)
    except ValueError:
        raise DestinationError(f"{host!r} is not an IPv6 address") from None


def _ipv4(labels: list[str], host: str) -> IPv4Address:
    wrong = DestinationError(f"{host!r} ends in a number and is not an IPv4 address")
    if len(labels) > 4:
        raise wrong
    numbers = []
    for label in labels:
        if not _NUMBER.fullmatch(label):
            raise wrong
        if label.startswith("0x"):
            numbers.append(int(label[2:] or "0", 16))
        elif label.startswith("0") and len(label) > 1:
            if not _OCTAL.fullmatch(label):
                raise wrong
            numbers.append(int(label, 8))
        else:
            numbers.append(int(label))
    *leading, last = numbers
    # As in inet_aton(3), the last number fills all remaining bytes of the address.
    if any(number > 255 for number in leading) or last >= 256 ** (5 - len(numbers)):
        raise wrong
    return IPv4Address(sum(number << 8 * (3 - at) for at, number in enumerate(leading)) + last)


# ── the address guard ────────────────────────────────────────────────────────────────────────────────────────────


class SpecialRange(NamedTuple):
    """An address range that the proxy must not connect to; ``cidr`` is written as in the registry."""

    cidr: str
    network: Network
    name: str
    source: str


def _table(text: str) -> tuple[SpecialRange, ...]:
    rows = (re.split(r"\s{2,}", line.strip()) for line in text.strip().splitlines())
    return tuple(SpecialRange(cidr, ipaddress.ip_network(cidr), name, source) for cidr, name, source in rows)


# The first matching range gives the reason, so list the narrower of two nested ranges first. Sources:
# - IANA's special-purpose registries for IPv4 and IPv6, including their globally reachable entries, because AS112, AMT
#   and the anycast addresses are not web servers;
# - IANA's IPv6 address space: only 2000::/3 is global unicast;
# - the list in OpenClaw's docs/security/network-proxy.md;
# - the cloud providers' pages on addresses that serve metadata and credentials.
SPECIAL_RANGES = _table(
    """
    169.254.169.254/32    cloud metadata                    AWS, Azure, Google Cloud and others
    169.254.170.2/32      cloud metadata                    AWS ECS task credentials
    168.63.129.16/32      cloud metadata                    Azure platform address
    100.100.100.200/32    cloud metadata                    Alibaba Cloud
    192.0.0.192/32        cloud metadata                    Oracle Cloud
    0.0.0.0/8             this network                      RFC 791
    10.0.0.0/8            private                           RFC 1918
    100.64.0.0/10         carrier-grade NAT                 RFC 6598
    127.0.0.0/8           loopback                          RFC 1122
    169.254.0.0/16        link-local                        RFC 3927
    172.16.0.0/12         private                           RFC 1918
    192.0.0.0/24          IETF protocol assignments         RFC 6890
    192.0.2.0/24          documentation                     RFC 5737
    192.31.196.0/24       AS112                             RFC 7535
    192.52.193.0/24       AMT                               RFC 7450
    192.88.99.0/24        6to4 relay anycast                RFC 7526
    192.168.0.0/16        private                           RFC 1918
    192.175.48.0/24       AS112                             RFC 7534
    198.18.0.0/15         benchmark                         RFC 2544
    198.51.100.0/24       documentation                     RFC 5737
    203.0.113.0/24        documentation                     RFC 5737
    224.0.0.0/4           multicast                         RFC 5771
    255.255.255.255/32    broadcast                         RFC 919
    240.0.0.0/4           reserved                          RFC 1112

    fd00:ec2::254/128     cloud metadata                    AWS
    fd20:ce::254/128      cloud metadata                    Google Cloud
    fd00:42::42/128       cloud metadata                    Scaleway
    ::/128                unspecified                       RFC 4291
    ::1/128               loopback                          RFC 4291
    ::/96                 IPv4-compatible                   RFC 4291
    ::ffff:0:0/96         IPv4-mapped                       RFC 4291
    ::ffff:0:0:0/96       IPv4-translated                   RFC 2765
    64:ff9b::/96          NAT64                             RFC 6052
    64:ff9b:1::/48        local-use NAT64                   RFC 8215
    100::/64              discard-only                      RFC 6666
    100:0:0:1::/64        dummy prefix                      RFC 9780
    2001::/32             Teredo                            RFC 4380
    2001:2::/48           benchmark                         RFC 5180
    2001:3::/32           AMT                               RFC 7450
    2001:4:112::/48       AS112                             RFC 7535
    2001:10::/28          ORCHID                            RFC 4843
    2001:20::/28          ORCHIDv2                          RFC 7343
    2001:30::/28          drone remote identification       RFC 9374
    2001::/23             IETF protocol assignments         RFC 2928
    2001:db8::/32         documentation                     RFC 3849
    2002::/16             6to4                              RFC 3056
    2620:4f:8000::/48     AS112                             RFC 7534
    3fff::/20             documentation                     RFC 9637
    5f00::/16             segment routing identifiers       RFC 9602
    fc00::/7              unique local                      RFC 4193
    fe80::/10             link-local                        RFC 4291
    fec0::/10             site-local                        RFC 3879
    ff00::/8              multicast                         RFC 4291
    ::/3                  not global unicast                RFC 4291
    4000::/2              not global unicast                RFC 4291
    8000::/1              not global unicast                RFC 4291
""".replace("\n\n", "\n")
)

_ISATAP = (0x0000_5EFE, 0x0200_5EFE)  # Upper half of an ISATAP interface identifier (RFC 5214, section 6.1).

_BY_VERSION = {
    version: [
        (int(row.network.network_address), int(row.network.netmask), f"{row.name} ({row.cidr}, {row.source})")
        for row in SPECIAL_RANGES
        if row.network.version == version
    ]
    for version in (4, 6)
}

GUARDED_NAMES: dict[str, tuple[str, tuple[Address, ...]]] = {
    "localhost": ("loopback (RFC 6761)", (IPv4Address("127.0.0.1"), IPv6Address("::1"))),
    "localhost.localdomain": ("loopback (RFC 6761)", (IPv4Address("127.0.0.1"), IPv6Address("::1"))),
    "metadata.google.internal": ("cloud metadata (Google Cloud)", (IPv4Address("169.254.169.254"),)),
}
"""Names that always resolve to addresses that the guard refuses, each with the reason and these addresses.

The address guard refuses the names without a look-up.
"""


def guard_reason(ip: Address) -> str | None:
    """Return why the guard refuses ``ip``, such as ``loopback (127.0.0.0/8, RFC 1122)``; None if the address is public.

    Compare the address with a list of ranges. :attr:`ipaddress.IPv6Address.is_global` is not sufficient: for example,
    it is also true for site-local and multicast addresses, and for NAT64 addresses that contain a private address.
    """
    number = int(ip)
    for network, mask, reason in _BY_VERSION[ip.version]:
        if number & mask == network:
            return reason
    if ip.version == 6 and (number >> 32) & 0xFFFF_FFFF in _ISATAP:
        return "ISATAP (interface 0:5efe or 200:5efe, RFC 5214)"
    return None


def guarded_name(host: str) -> tuple[str, tuple[Address, ...]] | None:
    """Return the reason and the addresses if ``host`` is in `GUARDED_NAMES` or ends with ``.localhost``; else None."""
    return GUARDED_NAMES.get("localhost" if host.endswith(".localhost") else host)


def literal_of(host: str) -> Address | None:
    """Return a canonical host as an address, or None if the host is a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
