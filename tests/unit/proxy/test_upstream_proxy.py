"""Tests of the settings of the upstream proxy, and of the destinations that bypass it or name it."""

import asyncio
from ipaddress import ip_address
from types import SimpleNamespace

import pytest

from openclaw_egress.policy.codes import Code
from openclaw_egress.policy.destination import parse_destination
from openclaw_egress.proxy.access_control import AccessControl
from openclaw_egress.proxy.resolver import ResolutionError
from openclaw_egress.proxy.upstream_proxy import NoProxy, UpstreamProxy, UpstreamProxyError
from openclaw_egress.settings import ProxyURL, Settings, SettingsError
from tests.support.upstream_proxy import ConnectProxy


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://proxy.example.com:3128", "http://proxy.example.com:3128"),
        ("HTTPS://Proxy.Example.COM.:443/", "https://proxy.example.com:443"),
        ("http://10.1.2.3:8080", "http://10.1.2.3:8080"),
        ("http://[FD00:0::1]:8080", "http://[fd00::1]:8080"),
    ],
)
def test_url_has_one_spelling(text, shown):
    assert str(ProxyURL.read(text)) == shown


@pytest.mark.parametrize(
    "text",
    [
        "socks5://proxy:1080", "proxy:3128", "http://proxy", "http://proxy:0", "http://proxy:99999", "http://:3128",
        "http://proxy:3128/a", "http://proxy:3128?", "http://proxy:3128#x", "http://a b:3128", "http://[zz]:1", "http:///x",
    ],
)  # fmt: skip
def test_invalid_url_is_refused(text):
    with pytest.raises(ValueError, match="write http://HOST:PORT"):
        ProxyURL.read(text)


@pytest.mark.parametrize(
    "text", ["http://u:S3cret@proxy:3128", "http://u:S3c@ret@proxy:99999", "http://u:S3cret/@proxy:1"]
)
def test_message_about_a_url_shows_no_password(monkeypatch, text):
    monkeypatch.setenv("EGRESS_UPSTREAM_PROXY", text)
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    assert "EGRESS_UPSTREAM_PROXY" in str(caught.value) and "S3c" not in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "direct", "onward"),
    [
        ("example.com", ["example.com", "a.b.example.com"], ["badexample.com", "example.com.evil.org"]),
        (".example.com", ["a.example.com"], ["example.com", "badexample.com"]),
        ("*.Example.com.", ["a.example.com"], ["example.com"]),
        ("bücher.example", ["xn--bcher-kva.example"], ["bucher.example"]),
    ],
)
def test_entry_with_a_name_matches_whole_labels(entry, direct, onward):
    listed = NoProxy([entry])
    assert all(map(listed.names, direct))
    assert not any(map(listed.names, onward))


def test_entry_with_a_network_matches_only_if_every_address_is_in_it():
    listed = NoProxy(["10.0.0.0/8", "[fd00::1]", "192.0.2.7"])
    inside, outside = ip_address("10.1.2.3"), ip_address("93.184.216.34")
    assert listed.contains((inside, ip_address("fd00::1"), ip_address("192.0.2.7")))
    assert not listed.contains((inside, outside)) and not listed.contains(())


@pytest.mark.parametrize(
    "entry", ["*", "example.com:443", "10.0.0.1/8", "http://example.com", "a..b", "user@example.com"]
)
def test_invalid_entry_is_refused(entry):
    with pytest.raises(SettingsError, match="EGRESS_UPSTREAM_NO_PROXY"):
        NoProxy([entry])


def upstream(tmp_path, url="http://proxy.example.com:3128", addresses=("93.184.216.34",), **settings):
    """Return an upstream proxy whose name has these addresses."""
    import certifi

    found = Settings(upstream_proxy=ProxyURL.read(url), **settings)
    proxy = UpstreamProxy(found, ProxyURL.read(url), certifi.where())

    async def lookup(_pool, _host, _port):
        if not addresses:
            raise ResolutionError("proxy.example.com does not resolve")
        return addresses

    proxy._resolver.addresses = lookup
    return proxy


@pytest.mark.parametrize(
    ("host", "addresses", "named"),
    [
        ("proxy.example.com", (), True),
        ("93.184.216.34", ("93.184.216.34",), True),
        ("alias.example.org", ("1.1.1.1", "93.184.216.34"), True),
        ("www.example.org", ("1.1.1.1",), False),
        ("unknown.example.org", (), False),
    ],
)
def test_destination_that_is_the_upstream_proxy_is_recognised_on_any_port(tmp_path, host, addresses, named):
    proxy = upstream(tmp_path)
    asyncio.run(proxy.refresh())
    for port in (3128, 443):
        assert proxy.is_named_by(parse_destination(host, port), addresses) is named


def test_unknown_name_of_the_upstream_proxy_is_unreachable(tmp_path):
    proxy = upstream(tmp_path, addresses=())
    with pytest.raises(UpstreamProxyError) as caught:
        asyncio.run(proxy.refresh())
    assert caught.value.code is Code.UPSTREAM_PROXY_UNREACHABLE
    assert "proxy.example.com:3128" in proxy.report()["problem"]


@pytest.mark.parametrize("text", ["", "user", "user:a\nb:c", "\x00:x", ":password", "user:pass\r\nX: y"])
def test_invalid_credentials_are_refused_and_not_shown(tmp_path, text):
    (file := tmp_path / "login").write_text(text)
    with pytest.raises(SettingsError) as caught:
        upstream(tmp_path, upstream_proxy_auth_file=file)
    assert str(file) in str(caught.value) and "password" not in str(caught.value)


@pytest.mark.parametrize("response", [b"", b"not HTTP\r\n\r\n", b"HTTP/1.1 502 Bad Gateway\r\n\r\n"])
def test_failure_after_connect_is_not_reported_as_a_problem_of_the_upstream_proxy(tmp_path, response):
    """Expect `/readyz` to ignore the failure, because it may concern only this destination."""
    with ConnectProxy(response=response) as corp:
        proxy = upstream(tmp_path, corp.url)
        with pytest.raises(UpstreamProxyError):
            asyncio.run(proxy.dial("black-hole.example:443", ("127.0.0.1",)))
        assert proxy.report()["problem"] == ""


def test_upstream_proxy_that_does_not_listen_is_reported_as_a_problem(tmp_path):
    with ConnectProxy() as corp:
        url = corp.url
    proxy = upstream(tmp_path, url)
    with pytest.raises(UpstreamProxyError):
        asyncio.run(proxy.dial("www.example.com:443", ("127.0.0.1",)))
    assert "is not reachable" in proxy.report()["problem"]


@pytest.mark.parametrize(("absent", "by_name"), [(True, True), (False, False)])
def test_policy_decides_without_addresses_only_if_the_name_does_not_exist(tmp_path, absent, by_name):
    async def lookup(_class, host, _port):
        raise ResolutionError(f"{host} does not resolve", absent=absent)

    control = AccessControl(lambda: None, None, upstream_proxy=upstream(tmp_path))
    control._resolver.addresses = lookup
    policy = SimpleNamespace(fixed_address=lambda _host: None)
    found = control._addresses(policy, "browser", parse_destination("www.example.com", 443))
    if by_name:
        assert asyncio.run(found) == ()
    else:
        with pytest.raises(ResolutionError):
            asyncio.run(found)
