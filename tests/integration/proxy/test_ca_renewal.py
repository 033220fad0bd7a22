"""Tests of the issuing CA's renewal: clients are not interrupted, and the reported CA is the one in use."""

import datetime
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from subprocess import CompletedProcess

import pytest
from cryptography import x509
from OpenSSL import SSL

from openclaw_egress import certificates
from tests.integration.proxy.clocked_proxy import ClockedProxy
from tests.integration.proxy.conftest import make_proxy
from tests.integration.proxy.raw import read_head, status_of
from tests.support.egress_command import run_egress
from tests.support.proxy_process import PROVIDERS, RunningProxy

# The 200-day test needs this timeout when seven other test workers run in parallel.
pytestmark = pytest.mark.timeout(300)

HOST = PROVIDERS[0]
DAY = 86_400.0


def soon(holds: Callable[[], object]) -> bool:
    end = time.monotonic() + 30
    while not holds() and time.monotonic() < end:
        time.sleep(0.1)
    return bool(holds())


@pytest.fixture(params=["lean", "stock"])
def clocked(request, tmp_path, providers):
    ports = [providers.port, providers.http_port]
    proxy = ClockedProxy(tmp_path, ports, providers.ca_file, request.param)
    yield proxy
    if proxy.process is not None and proxy.process.poll() is None:
        proxy.kill()


@pytest.fixture(scope="module", params=["lean", "stock"])
def aging(request, tmp_path_factory, providers) -> Iterator[ClockedProxy]:
    """Run a proxy that cannot renew its CA, because it has no access to the root key."""
    at = tmp_path_factory.mktemp(request.param)
    proxy = ClockedProxy(at, [providers.port, providers.http_port], providers.ca_file, request.param)
    certificates.create(proxy.root.parent, at / "root", PROVIDERS)
    proxy.environment["EGRESS_CA_DIR"] = str(proxy.root.parent)
    with proxy:
        yield proxy


@dataclass
class Served:
    """The leaf certificate and the issuing certificate that one client received, as verified by OpenSSL."""

    leaf: x509.Certificate
    issuing: x509.Certificate


def call(proxy: RunningProxy, at: datetime.datetime | None = None, ciphers: bytes | None = None) -> Served:
    """Send one request as a client whose clock shows ``at``. Raise unless the provider responds."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.load_verify_locations(str(proxy.root))
    context.set_verify(SSL.VERIFY_PEER, lambda *given: bool(given[-1]))
    if ciphers:
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        context.set_cipher_list(ciphers)
    store = context.get_cert_store()
    assert store is not None
    if at is not None:
        store.set_time(at)
    with socket.create_connection(("127.0.0.1", proxy.ports["gateway"]), 20) as sock:
        target = f"{HOST}:{proxy.provider_port}"
        sock.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        assert status_of(read_head(sock)) == 200
        sock.settimeout(None)
        tls = SSL.Connection(context, sock)
        tls.set_tlsext_host_name(HOST.encode())
        tls.set_connect_state()
        tls.do_handshake()
        tls.sendall(f"GET /v1/models HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n".encode())
        head = tls.recv(4096)
        assert head.startswith(b"HTTP/1.1 "), head
        assert b"openclaw-egress" not in head.partition(b"\r\n\r\n")[0], head
        chain = tls.get_verified_chain(as_cryptography=True)
        assert chain is not None
        return Served(chain[0], chain[1])


@dataclass
class Client:
    """A client that sends requests continuously in a thread."""

    proxy: ClockedProxy
    served: list[Served] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    still: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> "Client":
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._call)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()

    @property
    def calls(self) -> int:
        return len(self.served) + len(self.failures)

    def _call(self) -> None:
        while not self._enough.is_set():
            # The lock stops the test from moving the clock during a handshake.
            try:
                with self.still:
                    self.served.append(call(self.proxy, self.proxy.now))
            except Exception as error:  # noqa: BLE001  (count every exception as a failure)
                self.failures.append(f"day {self.proxy.ahead.days}: {error!r}")


def test_200_days_pass_without_a_failed_request_and_without_a_restart(clocked):
    with clocked, Client(clocked) as client:
        for day in range(0, 201, 10):
            with client.still:
                clocked.ahead = datetime.timedelta(days=day)
            calls = client.calls

            def renewed() -> bool:
                until = datetime.datetime.fromisoformat(clocked.ask("/readyz")["ca"]["issuing_expires"])
                return until - clocked.now > datetime.timedelta(days=certificates.RENEW_BEFORE_DAYS)

            assert soon(renewed), f"day {day}: {clocked.ask('/readyz')}"
            assert soon(lambda calls=calls: client.calls >= calls + 2)
            assert clocked.ask("/healthz")["ok"] and clocked.ask("/readyz")["ok"]
        events = [row for row in clocked.rows() if row.event_name == "openclaw.egress.ca"]
    assert client.failures == []
    assert len(client.served) > 40
    issuing = {served.issuing.serial_number for served in client.served}
    assert len(issuing) == 4 and len(events) == 3
    for served in client.served:
        assert served.leaf.not_valid_after_utc <= served.issuing.not_valid_after_utc
    # The proxy renews a leaf certificate long before it expires, even if the CA stays the same.
    assert len({served.leaf.serial_number for served in client.served}) > 8
    assert "Traceback" not in clocked.log


def test_a_leaf_certificate_never_outlives_a_ca_that_is_about_to_expire(clocked):
    certificates.create(clocked.root.parent, clocked.directory / "root", PROVIDERS)
    clocked.environment["EGRESS_CA_DIR"] = str(clocked.root.parent)
    clocked.ahead = datetime.timedelta(days=80)
    with clocked:
        served = call(clocked, clocked.now)
        assert served.leaf.not_valid_after_utc == served.issuing.not_valid_after_utc


def egress(proxy: RunningProxy, *words: str) -> CompletedProcess[str]:
    return run_egress(*words, environment=proxy.environment)


@pytest.mark.parametrize("kind", ["lean", "stock"])
def test_a_renewed_ca_is_served_by_the_running_proxy_and_reported(kind, tmp_path, providers):
    with make_proxy(tmp_path, providers, kind) as proxy:
        before = call(proxy).issuing
        # Renew the CA with the command that root runs on VPS-1.
        assert egress(proxy, "ca", "create", "--renew").stdout == "created\n"
        assert soon(lambda: call(proxy).issuing != before)
        after = call(proxy).issuing
        until = after.not_valid_after_utc
        assert egress(proxy, "status").stdout.count(f"(served) valid until {until:%Y-%m-%d}") == 1
        assert proxy.ask("/readyz")["ca"]["issuing_expires"] == until.isoformat()
        gauge = next(
            line
            for line in proxy.metrics().splitlines()
            if line.startswith("openclaw_egress_ca_expiry_timestamp_seconds ")
        )
        assert float(gauge.split()[1]) == until.timestamp()


def test_egress_ca_renew_creates_a_new_ca_at_once(lean):
    with lean:
        before = call(lean).issuing
        assert egress(lean, "ca", "renew").returncode == 0
        assert soon(lambda: call(lean).issuing != before)


def test_served_ca_is_reported_while_the_file_is_unusable(lean):
    with lean:
        served = call(lean).issuing
        file = lean.root.with_name(certificates.ISSUING_FILE)
        content, mode = file.read_bytes(), file.stat().st_mode
        other = lean.directory / "other"
        certificates.create(other / "ca", other / "root", ["www.example.com"])
        another = (other / "ca" / certificates.ISSUING_FILE).read_bytes()
        for broken in (b"", b"not a CA", content[: len(content) // 2], another):
            new = file.with_suffix(".new")
            new.write_bytes(broken)
            new.chmod(mode)
            new.replace(file)
            assert soon(lambda: lean.ask("/readyz")["problems"]), broken
            problem = lean.ask("/readyz")["problems"][0]
            assert "still served" in problem and str(file) in problem
            # Connect with other ciphers too: if mitmproxy created a new TLS context for them, it would read the
            # certificate chain from the replaced file.
            for ciphers in (None, b"ECDHE-ECDSA-AES256-GCM-SHA384"):
                assert call(lean, ciphers=ciphers).issuing == served
            status = egress(lean, "status", "--json")
            assert served.not_valid_after_utc.isoformat() in status.stdout and status.returncode == 1
            file.write_bytes(content)
            assert soon(lambda: not lean.ask("/readyz")["problems"])
        file.unlink()
        assert soon(lambda: lean.ask("/readyz")["problems"])
        assert call(lean).issuing == served
        file.write_bytes(content)
        assert soon(lambda: not lean.ask("/readyz")["problems"])
        refused = [row for row in lean.rows() if "still served" in (row.reason or "")]
        # Allow more than five reports: `write_bytes` is not atomic, so the proxy may also report an empty file.
        assert len(refused) >= 5 and {row.event_name for row in refused} == {"openclaw.egress.ca"}
    assert "Traceback" not in lean.log


@pytest.mark.parametrize(
    ("days", "ok", "warned"), [(55, True, False), (70, True, True), (84, False, False), (95, False, False)]
)
def test_readiness_and_health_fail_seven_days_before_expiry(aging, days, ok, warned):
    aging.ahead = datetime.timedelta(days=days)
    report = aging.ask("/readyz")
    assert report["ok"] is ok and any("issuing CA" in text for text in report["problems"]) is not ok
    assert any("issuing CA" in text for text in report["warnings"]) is warned
    assert (egress(aging, "health").returncode == 0) is ok
    assert (egress(aging, "status").returncode == 0) is ok


def test_a_newly_inspected_host_gets_its_ca_without_a_restart(lean):
    """Use a CA that the proxy itself creates. The next test uses a CA that root creates."""
    with lean:
        before = lean.ask("/readyz")["policy"]
        text = lean.policy_file.read_text()
        lean.policy_file.write_text(text.replace('"api.openai.com"]', '"api.openai.com", "www.example.com"]', 1))
        assert soon(lambda: lean.ask("/readyz")["policy"] != before), lean.log
        report = lean.ask("/readyz")
        assert report["ok"] and "www.example.com" in report["ca"]["names"]
        with lean.client("browser") as http:
            assert http.get(lean.url("www.example.com", "/")).status_code == 200


@pytest.mark.parametrize("first", ["policy", "ca"])
def test_policy_and_roots_ca_are_loaded_in_either_order(lean, first):
    directory, root_keys = lean.root.parent, lean.directory / "root"
    certificates.create(directory, root_keys, PROVIDERS)
    lean.environment["EGRESS_CA_DIR"] = str(directory)
    with lean:
        before = lean.ask("/readyz")["policy"]
        text = lean.policy_file.read_text().replace('"api.openai.com"]', '"www.example.com"]', 1)

        def write(what: str) -> None:
            if what == "policy":
                lean.policy_file.write_text(text)
            else:
                certificates.create(directory, root_keys, [PROVIDERS[0], "www.example.com"])

        write(first)
        assert soon(lambda: lean.ask("/readyz")["problems"])
        write("ca" if first == "policy" else "policy")
        assert soon(lambda: lean.ask("/readyz")["policy"] != before and lean.ask("/readyz")["ok"]), lean.log
        with lean.client("browser") as http:
            assert http.get(lean.url("www.example.com", "/")).status_code == 200


@pytest.mark.skipif(os.getuid() != 0, reason="only root can change the owner of files")
def test_a_ca_that_root_renews_keeps_owner_and_mode(tmp_path):
    directory, keys = tmp_path / "ca", tmp_path / "keys"
    directory.mkdir()
    os.chown(directory, 64081, 64081)
    certificates.create(directory, keys, PROVIDERS)
    files = {name: (directory / name).stat() for name in (certificates.ISSUING_FILE, certificates.ROOT_CERT_FILE)}
    assert {found.st_uid for found in files.values()} == {64081}
    (directory / certificates.ISSUING_FILE).chmod(0o400)
    assert certificates.create(directory, keys, PROVIDERS, force_issuing=True)
    renewed = (directory / certificates.ISSUING_FILE).stat()
    assert (renewed.st_uid, renewed.st_gid, renewed.st_mode & 0o777) == (64081, 64081, 0o400)
    assert (keys / certificates.ROOT_KEY_FILE).stat().st_uid == 0
