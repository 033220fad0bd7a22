"""Tests that the proxy and `egress policy explain` refuse requests to the proxy's host in every class."""

import ipaddress
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from openclaw_egress.cli.explain import ask
from openclaw_egress.policy.codes import Code
from openclaw_egress.policy.destination import parse_destination
from openclaw_egress.policy.evaluate import decide_address
from openclaw_egress.policy.host_addresses import with_host_addresses
from openclaw_egress.policy.loader import load_policy
from openclaw_egress.policy.model import Decision, PolicyError
from openclaw_egress.proxy.request_checks import check_address
from openclaw_egress.proxy.resolver import is_own_address
from tests.support.egress_command import run_egress

PUBLIC, PUBLIC_6 = "93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"
POLICY = f"""\
version: 1
classes:
  gateway: {{listen: 8080, action: open}}
  browser: {{listen: 8081, action: enforce, allow: ["*", {{cidr: {PUBLIC}/32}}]}}
  build: {{listen: 8083, action: report, allow: [], deny: [{{cidr: {PUBLIC}/32}}]}}
  sandbox: {{listen: 8082, action: open, addresses: [{{cidr: {PUBLIC}/32, ports: [8443]}}]}}
resolve: {{vps.example: {PUBLIC}, vps6.example: "{PUBLIC_6}"}}
"""


@pytest.fixture
def policy_file(tmp_path) -> Path:
    (file := tmp_path / "policy.yml").write_text(POLICY)
    return file


def egress(policy_file: Path, addresses: Path | None, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `egress` with the environment variables that the proxy's container sets."""
    variables = {"EGRESS_POLICY_FILE": str(policy_file), "EGRESS_HOST_ADDRESSES_FILE": str(addresses or "")}
    return run_egress(*words, environment=os.environ | variables)


def explained(policy_file: Path, addresses: Path, class_name: str, url: str) -> Decision:
    """Return the decision that `egress policy explain` prints for a GET request."""
    return ask(with_host_addresses(load_policy(policy_file, None), addresses), class_name, url, "GET").decision


@pytest.fixture
def addresses(tmp_path) -> Path:
    (file := tmp_path / "host-addresses").write_text(f"# of this host\n{PUBLIC}  # eth0\n\n{PUBLIC_6}\n10.0.0.1\n")
    return file


@pytest.mark.parametrize(
    ("class_name", "url"),
    [
        ("gateway", "https://vps.example/"),
        ("gateway", "http://vps.example:18789/"),
        ("gateway", "https://vps6.example/"),
        ("browser", "https://vps.example/"),
        ("browser", f"https://{PUBLIC}/"),
        ("build", "https://vps.example/"),
        ("sandbox", "https://vps.example/"),
        ("sandbox", "https://vps6.example:8443/"),
    ],
)
def test_no_class_reaches_an_address_of_the_host(policy_file, addresses, class_name, url):
    found = explained(policy_file, addresses, class_name, url)
    assert (found.allow, found.rule) == (False, "address-guard")
    assert found.code == Code.HOST_ADDRESS


def test_prefix_covers_each_temporary_address(policy_file, tmp_path):
    (file := tmp_path / "addresses").write_text("2606:2800:021f:cb07::/64\n")
    policy = with_host_addresses(load_policy(policy_file, None), file)

    def rule(ip: str) -> str:
        return decide_address(policy, "gateway", parse_destination("vps6.example", 443), ipaddress.ip_address(ip)).rule

    temporary = (PUBLIC_6, "2606:2800:21f:cb07::1", "2606:2800:21f:cb07:ffff:ffff:ffff:ffff")
    assert {ip: rule(ip) for ip in temporary} == dict.fromkeys(temporary, "address-guard")
    other = ("2606:2800:21f:cb08::1", "2606:2800:21f:cb06:ffff:ffff:ffff:ffff", PUBLIC)
    assert {ip: rule(ip) for ip in other} == dict.fromkeys(other, "default")
    assert explained(policy_file, file, "sandbox", "https://vps6.example/").rule == "address-guard"


@pytest.mark.wording
def test_explain_command_refuses_the_hosts_addresses_as_well(policy_file, addresses):
    found = egress(policy_file, addresses, "policy", "explain", "gateway", "https://vps.example/")
    assert found.returncode == 1 and "an address of this proxy's host" in found.stdout


def test_command_refuses_an_invalid_file_with_one_message(policy_file, tmp_path):
    done = egress(policy_file, tmp_path / "none", "policy", "check")
    assert done.returncode == 2 and "cannot be read" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("spelling", [PUBLIC, "93.12113678", "0x5d.0xb8.0xd7.0xe", "0135.0270.0327.016", "1572394766"])
def test_every_spelling_of_the_hosts_address_is_refused(policy_file, addresses, spelling):
    assert not explained(policy_file, addresses, "browser", f"https://{spelling}/").allow
    for form in (f"[::ffff:{PUBLIC}]", "[2002:5db8:d70e::]", "[64:ff9b::5db8:d70e]"):
        assert not explained(policy_file, addresses, "gateway", f"https://{form}/").allow


def test_exception_permits_an_address_of_the_host_for_its_port(policy_file, addresses):
    assert explained(policy_file, addresses, "sandbox", "https://vps.example:8443/").allow
    assert not explained(policy_file, addresses, "gateway", "https://vps.example:8443/").allow


def test_access_control_refuses_the_hosts_addresses_as_well(policy_file, addresses):
    policy = with_host_addresses(load_policy(policy_file, None), addresses)
    for class_name in policy.classes:
        for port in (443, 8443):
            for ip in (PUBLIC, PUBLIC_6, "1.1.1.1"):
                requested = parse_destination("vps.example", port)
                gate = check_address(policy, class_name, requested, ip)
                assert gate == decide_address(policy, class_name, requested, ipaddress.ip_address(ip))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"1.2.3.4\n1.2.3.4/32\n", ":2: '1.2.3.4/32' is not an IP address"),
        (b"vps.example", ":1: 'vps.example' is not an IP address"),
        (b"10.0.0.0/64", ":1: '10.0.0.0/64' is not an IP address or an IPv6 prefix of length 64"),
        (b"2606:2800:21f:cb07::/48", ":1: '2606:2800:21f:cb07::/48' is not an IP address"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (None, "cannot be read: No such file"),
    ],
)
def test_invalid_host_addresses_file_is_reported_in_one_message(policy_file, tmp_path, content, said):
    file = tmp_path / "addresses"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(PolicyError, match=r".") as found:
        with_host_addresses(load_policy(policy_file, None), file)
    assert said in str(found.value)


def test_mapped_and_zoned_addresses_in_the_file_are_normalised(policy_file, tmp_path):
    (file := tmp_path / "addresses").write_text("::ffff:1.2.3.4\nfe80::1%eth0\n")
    found = with_host_addresses(load_policy(policy_file, None), file).host_addresses
    assert found.addresses == {ipaddress.ip_address("1.2.3.4"), ipaddress.ip_address("fe80::1")}


def test_without_a_free_descriptor_an_address_counts_as_own():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        assert is_own_address("1.1.1.1")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


IN_A_NAMESPACE = """
ip link set lo up && ip address add 9.9.9.9/32 dev lo && ip -6 address add 2620:fe::9/128 dev lo || exit 77
exec "$PYTHON" -c '
import sys
from pathlib import Path
from openclaw_egress.policy.destination import parse_destination
from openclaw_egress.policy.loader import load_policy
from openclaw_egress.proxy.request_checks import check_address
policy = load_policy(Path(sys.argv[1]), None)
for name in policy.classes:
    for ip in ("9.9.9.9", "2620:fe::9"):
        print(name, ip, check_address(policy, name, parse_destination("a.example", 443), ip).rule)
' "$POLICY"
"""


def test_a_standalone_proxy_guards_the_addresses_of_its_interfaces(tmp_path):
    (file := tmp_path / "policy.yml").write_text(
        "version: 1\nclasses:\n  gateway: {listen: 8080, action: open}\n"
        "  build: {listen: 8083, action: report, allow: [], deny: [{cidr: 9.9.9.9/32}, {cidr: 2620:fe::/32}]}\n"
    )
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", IN_A_NAMESPACE],
        env=os.environ | {"PYTHON": sys.executable, "POLICY": str(file)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"this machine cannot create a network namespace with addresses: {done.stderr.strip()}")
    assert done.stdout.count("address-guard") == 4, done.stdout + done.stderr
