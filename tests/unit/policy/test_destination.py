"""Tests of destinations: one canonical form for each host, all notations of addresses, all special address ranges."""

from __future__ import annotations

import ipaddress
import re
import socket
from ipaddress import IPv4Address, IPv6Address
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from openclaw_egress.policy.destination import (
    SPECIAL_RANGES,
    Destination,
    DestinationError,
    canonical_host,
    guard_reason,
    guarded_name,
    parse_destination,
)

NAMES = {
    "example.com": "example.com",
    "EXAMPLE.Com": "example.com",
    "example.com.": "example.com",
    "localhost": "localhost",
    "_dmarc.example.com": "_dmarc.example.com",
    "a_b.example.com": "a_b.example.com",
    "r3---sn-x.example.com": "r3---sn-x.example.com",
    "1.2.3.4.example": "1.2.3.4.example",
    "0x7f.example": "0x7f.example",
    "1e3": "1e3",
    "0x7g": "0x7g",
    "bücher.example": "xn--bcher-kva.example",
    "BÜCHER.example": "xn--bcher-kva.example",
    "bu\u0308cher.example": "xn--bcher-kva.example",
    "faß.example": "xn--fa-hia.example",
    "XN--BCHER-KVA.example": "xn--bcher-kva.example",
    "xn--n3h.example": "xn--n3h.example",
    "example\u3002com": "example.com",
    "ｅｘａｍｐｌｅ．com": "example.com",
    "\u212aelvin.example": "kelvin.example",
    "x" * 63 + ".example": "x" * 63 + ".example",
}


@pytest.mark.parametrize("written", list(NAMES))
def test_every_spelling_of_a_name_has_one_canonical_form(written: str) -> None:
    assert parse_destination(written, 443) == Destination(NAMES[written], None, 443)


ADDRESSES = {
    "127.0.0.1": "127.0.0.1",
    "127.0.0.1.": "127.0.0.1",
    "127.1": "127.0.0.1",
    "127.0.1": "127.0.0.1",
    "0x7f.1": "127.0.0.1",
    "0X7F.0.0.1": "127.0.0.1",
    "0177.0.0.1": "127.0.0.1",
    "0177.0x0.0.01": "127.0.0.1",
    "2130706433": "127.0.0.1",
    "0x7f000001": "127.0.0.1",
    "017700000001": "127.0.0.1",
    "0000000000000000177.1": "127.0.0.1",
    "10.65535": "10.0.255.255",
    "10.1.65535": "10.1.255.255",
    "0": "0.0.0.0",
    "0x": "0.0.0.0",
    "4294967295": "255.255.255.255",
    "１２７．０．０．１": "127.0.0.1",
    "①⑦②.16.0.1": "172.16.0.1",
    "127\u30020\u30020\u30021": "127.0.0.1",
    "[::1]": "::1",
    "::1": "::1",
    "[0:0:0:0:0:0:0:1]": "::1",
    "2001:0DB8::00A0": "2001:db8::a0",
}


@pytest.mark.parametrize("written", list(ADDRESSES))
def test_address_is_recognised_in_every_notation(written: str) -> None:
    address = ipaddress.ip_address(ADDRESSES[written])
    assert parse_destination(written, 80) == Destination(ADDRESSES[written], address, 80)


def test_ipv4_inside_ipv6_stays_ipv6_and_matches_no_ipv4_rule() -> None:
    assert parse_destination("::ffff:127.0.0.1", 80).address == IPv6Address("::ffff:7f00:1")


REFUSED = {
    "": "the host is empty",
    ".": "the host is empty",
    "a..b": "'a..b' has an empty label",
    ".a": "'.a' has an empty label",
    "a.b..": "'a.b..' has an empty label",
    "127.0.0.1..": "'127.0.0.1..' has an empty label",
    "a b": "'a b' has a space or control character in the host",
    "a\tb": r"'a\tb' has a space or control character in the host",
    "a\x00.example": r"'a\x00.example' has a space or control character in the host",
    "a\r\nHost: b": r"'a\r\nHost: b' has a colon; only a host is expected",
    "a\u200b.example": r"'a\u200b.example' has a space or control character in the host",
    "user@example.com": "'user@example.com' has user information where a host is expected",
    "127.0.0.1%2f": "'127.0.0.1%2f' has a percent escape where a host is expected",
    "%6cocalhost": "'%6cocalhost' has a percent escape where a host is expected",
    "example.com/x": "'example.com/x' has a slash where a host is expected",
    "example.com\\x": r"'example.com\\x' has a backslash where a host is expected",
    "example.com:443": "'example.com:443' has a colon; only a host is expected",
    "\u2100b": "'a/cb' has a slash where a host is expected",
    "\uff05\uff12e": "'%2e' has a percent escape where a host is expected",
    "*.example.com": "'*' in '*.example.com' is not a label of a host name",
    "-a.example": "'-a' in '-a.example' is not a label of a host name",
    "a-.example": "'a-' in 'a-.example' is not a label of a host name",
    "xn--.example": "'xn--' in 'xn--.example' is not a label of a host name",
    "xn--\u00fc.example": "",
    "fe80::1%eth0": "'fe80::1%eth0' has a zone id, which is valid on one machine only",
    "[fe80::1%25eth0]": "'[fe80::1%25eth0]' has a zone id, which is valid on one machine only",
    "[127.0.0.1]": "'[127.0.0.1]' is not an IPv6 address",
    "[v1.fe]": "'[v1.fe]' is not an IPv6 address",
    "[::1": "'[::1' is not an IPv6 address",
    "1::2::3": "'1::2::3' is not an IPv6 address",
    "1.2.3.4.5": "'1.2.3.4.5' ends in a number and is not an IPv4 address",
    "256.0.0.1": "'256.0.0.1' ends in a number and is not an IPv4 address",
    "1.2.3.256": "'1.2.3.256' ends in a number and is not an IPv4 address",
    "4294967296": "'4294967296' ends in a number and is not an IPv4 address",
    "09.1": "'09.1' ends in a number and is not an IPv4 address",
    "example.1": "'example.1' ends in a number and is not an IPv4 address",
    "example.0x": "'example.0x' ends in a number and is not an IPv4 address",
    "x" * 64: f"'{'x' * 64}' has a label of 64 characters (63 at most)",
    ".".join(["x" * 50] * 5): "the host name is too long (254 characters; 253 at most)",
    "x" * 100_000: "the host is too long (100000 characters)",
}


@pytest.mark.parametrize("written", list(REFUSED), ids=lambda text: text[:30])
def test_invalid_host_is_refused_with_the_reason(written: str) -> None:
    with pytest.raises(DestinationError) as refused:
        parse_destination(written, 443)
    assert refused.value.reason == str(refused.value)
    if REFUSED[written]:
        assert refused.value.reason == REFUSED[written]


def test_a_name_of_253_characters_is_the_longest() -> None:
    longest = ".".join(["x" * 50] * 4) + "." + "y" * 49
    assert parse_destination(longest + ".", 443).host == longest


@pytest.mark.parametrize("port", [0, -1, 65536, True, "443", 443.0, None])
def test_invalid_port_is_refused(port: object) -> None:
    with pytest.raises(DestinationError, match=r"is not a port \(1 to 65535\)"):
        parse_destination("example.com", port)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("host", "text"), [("a.example", "a.example:443"), ("1.2.3.4", "1.2.3.4:443"), ("::1", "[::1]:443")]
)
def test_destination_as_text_is_the_form_in_a_url(host: str, text: str) -> None:
    assert str(parse_destination(host, 443)) == text


# ── hosts as browsers parse them ─────────────────────────────────────────────────────────────────────────────────

# Hosts of URLs without percent escapes, and the expected canonical form, or None if a browser refuses the host.
# Source: web-platform-tests, url/resources/{urltestdata,toascii}.json and url/toascii.window.js
# (https://github.com/web-platform-tests/wpt/tree/master/url).
WPT = {
    "example.com": "example.com",
    "GOO.example": "goo.example",
    "Ｇｏ.com": "go.com",
    "www.foo。bar.com": "www.foo.bar.com",
    "你好你好": "xn--6qqa088eba",
    "faß.ExAmPlE": "xn--fa-hia.example",
    "xn--zca.xn--zca": "xn--zca.xn--zca",
    "x.ß": "x.xn--zca",
    "ab--c.example": "ab--c.example",
    "xn--": None,
    "xn--.example": None,
    "xn--a": None,
    "xn--a.xn--zca": None,
    "xn--a.ß": None,
    "xn--tešla": None,
    "\u00ad": None,
    "％４１.com": None,
    "www.lookout.net⩴80": None,
    "\u00a0www.example": None,
    "a⽢b℀": None,
    "a b": None,
    "a<b": None,
    "a>b": None,
    "a^b": None,
    "a|b": None,
    "a#b": None,
    "a?b": None,
    "a@b": None,
    "a[b": None,
    "a]b": None,
    "a%b": None,
    "a\\b": None,
    "a/b": None,
    "a:b": None,
    "a\x00b": None,
    "a\tb": None,
    "a\nb": None,
    "a\rb": None,
    "a\x01b": None,
    "a\x7fb": None,
    # IPv4
    "1.2.3.4": "1.2.3.4",
    "1.2.3.4.": "1.2.3.4",
    "192.168.257": "192.168.1.1",
    "192.168.257.": "192.168.1.1",
    "256": "0.0.1.0",
    "0Xc0.0250.01": "192.168.0.1",
    "０Ｘｃ０．０２５０．０１": "192.168.0.1",
    "192.0x00A80001": "192.168.0.1",
    "0xffffffff": "255.255.255.255",
    "00000000000300.168.0.1": "192.168.0.1",
    "0x.0x.0": "0.0.0.0",
    "1.2.0x.4": "1.2.0.4",
    "192.168.0.257": None,
    "192.168.0.257.": None,
    "0x100000000": None,
    "4294967296": None,
    "99999999999": None,
    "256.0.0.1": None,
    "256.256.256.256": None,
    "256.256.256.256.": None,
    "1.2.3.4.5": None,
    "1.2.3.4.5.": None,
    "0..0x300": None,
    "0..0x300.": None,
    "1.2.3.08": None,
    "1.2.3.09": None,
    "foo.2.3": None,
    "foo.2.3.": None,
    "foo.09": None,
    "foo.09.": None,
    "foo.0x4": None,
    "foo.0x4.": None,
    "foo.0x": None,
    "foo.0XFfFfFfFfFfFfFfFfFfAcE123": None,
    "1e2.3": None,
    "a.b.c.4294967296": None,
    "💩.123": None,
    "0x7f.0.0.0x7g": "0x7f.0.0.0x7g",
    "0X7F.0.0.0X7G": "0x7f.0.0.0x7g",
    # IPv6
    "[2001::1]": "2001::1",
    "[::127.0.0.1]": "::7f00:1",
    "[0:0:0:0:0:0:13.1.68.3]": "::d01:4403",
    "[1:0::]": "1::",
    "[0:0:0:0:1:0:0:0]": "::1:0:0:0",
    "[0:f:0:0:f:0:0:0]": "0:f:0:0:f::",
    "[1:2:3:4:5:6:7::]": "1:2:3:4:5:6:7:0",
    "[::127.0.0.1.]": None,
    "[::1.2.3.4x]": None,
    "[::1.2.3.]": None,
    "[::1.2.]": None,
    "[::.1.2]": None,
    "[::1.]": None,
    "[::.1]": None,
    "[::%31]": None,
    "[::0.00.0.0]": None,
    "[::1.2.3.256]": None,
    "[0:1:2:3:4:5:6:7:8]": None,
    "[0:1:2:3:4:5:6:7.0.0.0]": None,
    "[ffff::.0.0.1]": None,
    "[ffff::127.0.xyz.0.1]": None,
    "[ffff::127.0.0.4000]": None,
    "[1::2::3]": None,
    "[:::]": None,
    "[::1::]": None,
    "[::12345]": None,
    "[::1%eth0]": None,
    "[www.google.com]": None,
    "[google.com]": None,
    "[]": None,
    "[:]": None,
    "[::1": None,
    "::1]": None,
}


@pytest.mark.parametrize("written", list(WPT), ids=ascii)
def test_hosts_are_parsed_as_browsers_do(written: str) -> None:
    if WPT[written] is None:
        with pytest.raises(DestinationError):
            canonical_host(written)
    else:
        assert canonical_host(written)[0] == WPT[written]


# Hosts from the web-platform-tests files above that a browser accepts but the proxy refuses. Before a decision, the
# proxy does not remove characters or decode escapes. It enforces the length limit of DNS labels, and accepts symbols
# only as A-labels.
STRICTER = [
    "GOO\u200b\u2060\ufeffgoo.com",
    "a\u00adb",
    "%30%78%63%30%2e%30%32%35%30.01",
    "ex%61mple.com",
    "-x",
    "x-",
    "x..ß",
    ".example",
    "..",
    "x" * 64,
    "!\"$&'()*+,-.;=_`{}~",
    "💩",
    "-†",
]


@pytest.mark.parametrize("written", STRICTER, ids=ascii)
def test_some_hosts_that_browsers_accept_are_refused(written: str) -> None:
    with pytest.raises(DestinationError):
        canonical_host(written)


# ── properties ───────────────────────────────────────────────────────────────────────────────────────────────────

hosts = st.one_of(
    st.text(max_size=40),
    st.text("abcxn-_.0189ABÜß。．①xX:[]%", max_size=40),
    st.from_regex(r"\A[a-z0-9-]{1,20}(\.[a-z0-9-]{1,20}){0,4}\.?\Z"),
    st.ip_addresses().map(str),
)


@settings(deadline=None)
@given(hosts)
@example("xn--\u00fc.example")
@example("\u00ad")
def test_any_text_is_refused_or_has_a_stable_canonical_form(written: str) -> None:
    try:
        host, address = canonical_host(written)
    except DestinationError:
        return
    assert canonical_host(host) == (host, address)
    assert host.isascii() and host == host.lower()
    assert address is None or str(address) == host


@settings(deadline=None)
@given(st.ip_addresses(v=6))
def test_every_notation_of_an_ipv6_address_is_the_same_address(address: IPv6Address) -> None:
    for written in (str(address), address.exploded, address.compressed.upper(), f"[{address.exploded}]"):
        assert canonical_host(written) == (str(address), address)


GUARDED_V4 = [row for row in SPECIAL_RANGES if row.network.version == 4]


@st.composite
def addresses_within(draw: st.DrawFn, version: int) -> IPv4Address | IPv6Address:
    rows = [row for row in SPECIAL_RANGES if row.network.version == version]
    network = draw(st.sampled_from(rows)).network
    return network[draw(st.integers(0, network.num_addresses - 1))]


@st.composite
def spellings(draw: st.DrawFn, address: IPv4Address) -> str:
    """Draw a notation of the address that inet_aton accepts: 1 to 4 parts, any base, leading zeros, a trailing dot."""
    parts = draw(st.integers(1, 4))
    value = int(address)
    numbers = [value >> 8 * (3 - at) & 255 for at in range(parts - 1)] + [value & (1 << 8 * (5 - parts)) - 1]
    zeros = draw(st.integers(0, 4))
    bases = {"d": str, "o": lambda n: "0" * (1 + zeros) + f"{n:o}", "x": lambda n: "0x" + "0" * zeros + f"{n:x}"}
    text = ".".join(bases[draw(st.sampled_from("dox"))](number) for number in numbers)
    if draw(st.booleans()):
        text = text.upper()
    if draw(st.booleans()):
        text = text.translate({ord(char): ord(char) + 0xFEE0 for char in "0123456789abcdefxABCDEFX."})  # full-width
    return text + draw(st.sampled_from(["", "."]))


@settings(deadline=None)
@given(st.data(), st.ip_addresses(v=4))
def test_every_notation_of_an_ipv4_address_is_recognised(data: st.DataObject, address: IPv4Address) -> None:
    assert canonical_host(data.draw(spellings(address))) == (str(address), address)


@settings(deadline=None)
@given(
    st.lists(st.from_regex(r"\A(0[xX][0-9a-fA-F]{1,9}|0?[0-9]{1,11})\Z"), min_size=1, max_size=5),
    st.sampled_from(["", "."]),
)
def test_numbers_and_dots_are_an_address_or_refused_and_never_a_name(numbers: list[str], end: str) -> None:
    try:
        host, address = canonical_host(".".join(numbers) + end)
    except DestinationError:
        return
    assert address is not None and host == str(address)
    # Compare with the C library: if the proxy interpreted the numbers differently, clients could bypass it.
    assert socket.inet_aton(".".join(numbers).lower()) == address.packed


@settings(deadline=None)
@given(
    st.ip_addresses(v=4), st.sampled_from(["::", "::ffff:", "::FFFF:", "0:0:0:0:0:ffff:", "0::FfFf:"]), st.booleans()
)
def test_an_ipv4_address_in_ipv6_text_is_an_ipv6_address_that_is_refused(
    inner: IPv4Address, prefix: str, in_brackets: bool
) -> None:
    number = int(inner)
    for tail in (str(inner), f"{number >> 16:x}:{number & 0xFFFF:X}"):
        host, address = canonical_host(f"[{prefix}{tail}]" if in_brackets else f"{prefix}{tail}")
        assert isinstance(address, IPv6Address) and host == str(address)
        assert int(address) & 0xFFFF_FFFF == number
        assert guard_reason(address) is not None


@settings(deadline=None)
@given(st.from_regex(r"\A[a-z0-9_äßÜ①]{1,20}(\.[a-z0-9_äßé-]{1,20}){0,4}\Z"), st.randoms(use_true_random=False))
def test_case_and_trailing_dot_do_not_change_the_name(written: str, chance: Random) -> None:
    try:
        form = canonical_host(written)
    except DestinationError:
        return
    # Do not change the case of letters such as ß: its upper case is SS, and IDNA 2008 treats that as a different name.
    varied = "".join(char.upper() if len(char.upper()) == 1 and chance.random() < 0.5 else char for char in written)
    assert canonical_host(varied) == form
    assert canonical_host(varied + ".") == form


@settings(deadline=None)
@given(st.data())
def test_every_spelling_of_a_guarded_address_is_refused(data: st.DataObject) -> None:
    address = data.draw(addresses_within(4))
    assert isinstance(address, IPv4Address)
    written = data.draw(spellings(address))
    found = parse_destination(written, 80).address
    assert found == address
    assert guard_reason(address) is not None


@settings(deadline=None)
@given(addresses_within(6))
def test_every_ipv6_address_of_a_special_range_is_refused(address: IPv6Address) -> None:
    assert guard_reason(address) is not None


@settings(deadline=None)
@given(
    st.ip_addresses(v=4),
    st.sampled_from(
        [
            "::",
            "::ffff:",
            "::ffff:0:",
            "64:ff9b::",
            "64:ff9b:1::",
            "2a00:1450:4001:800:0:5efe:",
            "2a00:1450:4001:800:200:5efe:",
        ]
    ),
)
def test_ipv6_address_that_contains_an_ipv4_address_is_refused(inner: IPv4Address, prefix: str) -> None:
    assert guard_reason(IPv6Address(f"{prefix}{inner}")) is not None


@settings(deadline=None)
@given(st.ip_addresses())
def test_addresses_that_python_considers_private_are_refused(address: IPv4Address | IPv6Address) -> None:
    if not address.is_global or address.is_multicast or address.is_reserved:
        assert guard_reason(address) is not None


# ── the address guard ────────────────────────────────────────────────────────────────────────────────────────────

GUARD = {
    "0.0.0.0": "this network (0.0.0.0/8, RFC 791)",
    "10.255.255.255": "private (10.0.0.0/8, RFC 1918)",
    "100.64.0.1": "carrier-grade NAT (100.64.0.0/10, RFC 6598)",
    "100.100.100.200": "cloud metadata (100.100.100.200/32, Alibaba Cloud)",
    "127.0.0.1": "loopback (127.0.0.0/8, RFC 1122)",
    "168.63.129.16": "cloud metadata (168.63.129.16/32, Azure platform address)",
    "169.254.169.254": "cloud metadata (169.254.169.254/32, AWS, Azure, Google Cloud and others)",
    "169.254.0.1": "link-local (169.254.0.0/16, RFC 3927)",
    "172.31.255.255": "private (172.16.0.0/12, RFC 1918)",
    "192.0.0.8": "IETF protocol assignments (192.0.0.0/24, RFC 6890)",
    "192.0.2.1": "documentation (192.0.2.0/24, RFC 5737)",
    "192.88.99.1": "6to4 relay anycast (192.88.99.0/24, RFC 7526)",
    "192.168.1.1": "private (192.168.0.0/16, RFC 1918)",
    "198.19.255.255": "benchmark (198.18.0.0/15, RFC 2544)",
    "198.51.100.1": "documentation (198.51.100.0/24, RFC 5737)",
    "203.0.113.1": "documentation (203.0.113.0/24, RFC 5737)",
    "224.0.0.1": "multicast (224.0.0.0/4, RFC 5771)",
    "240.0.0.1": "reserved (240.0.0.0/4, RFC 1112)",
    "255.255.255.255": "broadcast (255.255.255.255/32, RFC 919)",
    "::": "unspecified (::/128, RFC 4291)",
    "::1": "loopback (::1/128, RFC 4291)",
    "::10.0.0.1": "IPv4-compatible (::/96, RFC 4291)",
    "::ffff:8.8.8.8": "IPv4-mapped (::ffff:0:0/96, RFC 4291)",
    "::ffff:0:8.8.8.8": "IPv4-translated (::ffff:0:0:0/96, RFC 2765)",
    "64:ff9b::a00:1": "NAT64 (64:ff9b::/96, RFC 6052)",
    "64:ff9b:1::1": "local-use NAT64 (64:ff9b:1::/48, RFC 8215)",
    "100::1": "discard-only (100::/64, RFC 6666)",
    "2001::1": "Teredo (2001::/32, RFC 4380)",
    "2001:2::1": "benchmark (2001:2::/48, RFC 5180)",
    "2001:20::1": "ORCHIDv2 (2001:20::/28, RFC 7343)",
    "2001:1ff::1": "IETF protocol assignments (2001::/23, RFC 2928)",
    "2001:db8::1": "documentation (2001:db8::/32, RFC 3849)",
    "2002:a00:1::": "6to4 (2002::/16, RFC 3056)",
    "3fff:fff::1": "documentation (3fff::/20, RFC 9637)",
    "5f00::1": "segment routing identifiers (5f00::/16, RFC 9602)",
    "fc00::1": "unique local (fc00::/7, RFC 4193)",
    "fd00:ec2::254": "cloud metadata (fd00:ec2::254/128, AWS)",
    "fd12::1": "unique local (fc00::/7, RFC 4193)",
    "fe80::1": "link-local (fe80::/10, RFC 4291)",
    "fec0::1": "site-local (fec0::/10, RFC 3879)",
    "ff02::1": "multicast (ff00::/8, RFC 4291)",
    "1234::1": "not global unicast (::/3, RFC 4291)",
    "4000::1": "not global unicast (4000::/2, RFC 4291)",
    "2a00::5efe:1.2.3.4": "ISATAP (interface 0:5efe or 200:5efe, RFC 5214)",
    "2a00::200:5efe:1.2.3.4": "ISATAP (interface 0:5efe or 200:5efe, RFC 5214)",
}


@pytest.mark.parametrize("address", list(GUARD))
def test_address_guard_names_the_range_of_an_address(address: str) -> None:
    assert guard_reason(ipaddress.ip_address(address)) == GUARD[address]


# All ranges of https://www.iana.org/assignments/iana-ipv4-special-registry. The proxy also refuses the ranges that the
# registry calls globally reachable (IANA_IPV4_REACHABLE), because they contain no web servers.
IANA_IPV4 = """
    0.0.0.0/8 0.0.0.0/32 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.0.0/29
    192.0.0.8/32 192.0.0.170/32 192.0.0.171/32 192.0.2.0/24 192.88.99.0/24 192.88.99.2/32 192.168.0.0/16 198.18.0.0/15
    198.51.100.0/24 203.0.113.0/24 240.0.0.0/4 255.255.255.255/32
"""
IANA_IPV4_REACHABLE = "192.0.0.9/32 192.0.0.10/32 192.31.196.0/24 192.52.193.0/24 192.175.48.0/24"

# All ranges of https://www.iana.org/assignments/iana-ipv6-special-registry.
IANA_IPV6 = """
    ::1/128 ::/128 ::ffff:0:0/96 64:ff9b:1::/48 100::/64 100:0:0:1::/64 2001::/23 2001::/32 2001:2::/48 2001:10::/28
    2001:db8::/32 2002::/16 3fff::/20 5f00::/16 fc00::/7 fe80::/10
"""
IANA_IPV6_REACHABLE = """
    64:ff9b::/96 2001:1::1/128 2001:1::2/128 2001:1::3/128 2001:3::/32 2001:4:112::/48 2001:20::/28 2001:30::/28
    2620:4f:8000::/48
"""
IANA = " ".join((IANA_IPV4, IANA_IPV4_REACHABLE, IANA_IPV6, IANA_IPV6_REACHABLE)).split()


@pytest.mark.parametrize("cidr", IANA)
def test_every_address_of_ianas_special_purpose_registries_is_refused(cidr: str) -> None:
    network = ipaddress.ip_network(cidr)
    covering = [row.network for row in SPECIAL_RANGES if row.network.version == network.version]
    assert any(network.subnet_of(wider) for wider in covering)  # type: ignore[arg-type]
    for address in (network[0], network[network.num_addresses // 2], network[-1]):
        assert guard_reason(address) is not None


PUBLIC = (
    "1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 168.63.129.15 "
    "169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.0 192.0.3.0 192.167.255.255 192.169.0.0 "
    "198.17.255.255 198.20.0.0 203.0.112.255 203.0.114.0 223.255.255.255 "
    "2001:200::1 2001:4860:4860::8888 2001:db7:ffff::1 2001:db9::1 2003::1 2606:4700:4700::1111 2620:4f:8001::1 "
    "2a00:1450:4001::5eff:1.2.3.4 3ffe:ffff::1 3fff:1000::1"
)


@pytest.mark.parametrize("address", PUBLIC.split())
def test_addresses_next_to_special_ranges_are_public(address: str) -> None:
    assert guard_reason(ipaddress.ip_address(address)) is None


def test_each_special_range_has_its_own_reason() -> None:
    for row in SPECIAL_RANGES:
        middle = row.network[row.network.num_addresses // 2 - 1] if row.network.num_addresses > 1 else row.network[0]
        reason = guard_reason(middle)
        assert reason == f"{row.name} ({row.cidr}, {row.source})" or _hidden_by_narrower(reason, row.cidr)


def _hidden_by_narrower(reason: str | None, cidr: str) -> bool:
    found = re.search(r"\(([^,]*),", reason or "")
    assert found
    narrow, wide = ipaddress.ip_network(found[1]), ipaddress.ip_network(cidr)
    return narrow.version == wide.version and narrow.prefixlen > wide.prefixlen


@pytest.mark.parametrize("name", ["localhost", "a.b.localhost", "localhost.localdomain", "metadata.google.internal"])
def test_names_of_guarded_addresses_are_known_without_a_lookup(name: str) -> None:
    found = guarded_name(name)
    assert found is not None
    assert all(guard_reason(address) for address in found[1])


@pytest.mark.parametrize("name", ["localhost.example", "notlocalhost", "google.internal", "example.com"])
def test_other_names_are_not_guarded(name: str) -> None:
    assert guarded_name(name) is None
