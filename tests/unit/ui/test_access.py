"""Tests of the rules that decide who can access the web page."""

import pytest

from openclaw_egress.ui import access


@pytest.mark.parametrize("host", ["127.0.0.1:9465", "localhost", "LOCALHOST:1", "[::1]:9465"])
def test_loopback_names_are_accepted_with_any_port(host):
    assert access.is_loopback(host)


@pytest.mark.parametrize(
    "host", [None, "", "evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "[::1", "10.0.0.1:9465"]
)
def test_other_names_are_refused(host):
    assert not access.is_loopback(host)


def test_tunnels_on_two_ports_keep_two_cookies():
    assert access.cookie_name("127.0.0.1:9465") != access.cookie_name("127.0.0.1:9466")
    assert access.cookie_name("127.0.0.1:99999999") == access.cookie_name("127.0.0.1")


@pytest.mark.parametrize("given", [None, "", "wrong", "\ud800", "é"])
def test_only_the_exact_token_is_accepted(given):
    assert not access.is_token(given, "right") and access.is_token("right", "right")


@pytest.mark.parametrize(
    "target", ["https://evil.example/", "//evil.example", "/\\evil.example", "", "x", "/a\r\nSet-Cookie: a=b"]
)
def test_login_leads_to_no_other_server(target):
    assert access.local_target(target) == "/"


def test_login_leads_to_the_requested_page():
    assert access.local_target("/?class=sandbox") == "/?class=sandbox"
