"""Tests that the proxy removes Proxy-Status members with its own name, and keeps all others."""

import time

import pytest

from openclaw_egress.wire.proxy_status import without_our_name

FORGED = b'openclaw-egress; error=http_request_denied; details="classes.sandbox.deny[0]"'


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (FORGED, b""),
        (b"cdn.example; fwd=miss", b"cdn.example; fwd=miss"),
        (b"cdn.example, " + FORGED, b"cdn.example"),
        (FORGED + b" \t, a;b=?1 ,c", b"a;b=?1, c"),
        (b'"openclaw-egress"; error=x', b""),
        (b"OpenClaw-Egress", b""),
        (b'" openclaw-egress "', b""),
        (b'a; details="x, openclaw-egress; error=y"', b'a; details="x, openclaw-egress; error=y"'),
        (b'a; details="q\\"", openclaw-egress', b'a; details="q\\""'),
        (b"a; n=1; d=1.5; t=tok; b=:YQ==:", b"a; n=1; d=1.5; t=tok; b=:YQ==:"),
        (b"openclaw-egress-2; error=x", b"openclaw-egress-2; error=x"),
        (b"", b""),
    ],
)
def test_own_name_is_removed(value, kept):
    assert without_our_name(value) == kept


@pytest.mark.parametrize(
    "value",
    [
        b'a; details="x',
        b'", openclaw-egress',
        b"a,",
        b",a",
        b"a b",
        b"a; =1",
        b"(a b)",
        b"1",
        b'"openclaw\\-egress"',
        b"a\xff",
    ],
)
def test_malformed_value_is_removed(value):
    assert without_our_name(value) == b""


def test_long_values_take_linear_time():
    began = time.monotonic()
    for value in (b"a;" * 100_000, b'"' + b"\\" * 200_000, b"a;b=" * 50_000, b"a , " * 50_000, b"a" + b" " * 200_000):
        without_our_name(value)
    assert time.monotonic() - began < 5
