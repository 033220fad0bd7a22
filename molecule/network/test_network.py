"""Tests of enforcement level `network`: the addresses that each container can reach directly, and allowed traffic."""

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from molecule.lab.hosts import (
    NAME,
    agent_turn,
    in_gateway,
    in_sandbox,
    loki,
    on,
    page,
    provider_log,
    run,
    sandbox,
    sandbox_settings,
    soon,
    telemetry,
    ways_out,
)
from tests.support.docker_exec import completed

# Use a long timeout, because a reboot of a host takes minutes.
pytestmark = pytest.mark.timeout(400)

PROXY, GATEWAY, FORWARDER = "172.31.250.2", "172.31.250.3", "172.31.250.4"
SUBNET = "172.31.250.0/24"
# The shared proxy port. For connections to this port, firewall rules rewrite the destination to the listener of the
# client's class.
SHARED_PORT = f"{PROXY}:3128"
LISTENERS = {SHARED_PORT, *(f"{PROXY}:{port}" for port in (8080, 8081, 8082, 8083))}
ELSEWHERE = {
    "172.30.0.250:8081", "172.30.0.1:22", "10.0.0.1:22", "10.0.0.2:3100", "198.51.100.10:443", "198.51.100.66:53",
    "169.254.169.254:80", f"{FORWARDER}:18789", f"{PROXY}:9464", "172.30.0.1:18789",
}  # fmt: skip
# Ports of the gateway itself, at each of its addresses.
INWARDS = {f"{address}:18789" for address in (GATEWAY, "172.17.0.1", "172.18.0.1", "172.19.0.1", "172.20.0.1")}
STRANGER = "an-agents-own-network"
# The networks of the gateway's own Docker daemon. Each maps to the TCP targets that its containers may reach directly.
TIED: dict[str, set[str]] = {
    "openclaw-egress-sandbox": {SHARED_PORT, f"{PROXY}:8082"},
    "openclaw-egress-browser": {SHARED_PORT, f"{PROXY}:8081"},
    "bridge": {SHARED_PORT, f"{PROXY}:8083"},
    STRANGER: set(),
}
IMAGE = "openclaw-sandbox:bookworm-slim"
REACHED = """
import socket, sys, threading
def to(target):
    host, _, port = target.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        try:
            plain.sendto(b"a way out", (host, int(port)))
        except OSError:
            pass
    try:
        socket.create_connection((host, int(port)), 4).close()
    except OSError:
        return
    print(target)
for target in sys.argv[1:]:
    threading.Thread(target=to, args=(target,)).start()
"""


def reached(network: str) -> set[str]:
    """Send TCP and UDP from a container on this network of the gateway's daemon. Return the TCP targets it reached."""
    container = ("docker", "run", "--rm", "--network", network, IMAGE)
    return set(in_gateway(*container, "python3", "-c", REACHED, *LISTENERS, *ELSEWHERE, *INWARDS).split())


def holds() -> None:
    """Check that network enforcement is active and that allowed traffic passes."""
    before = ways_out()
    in_gateway("sh", "-c", f"docker network inspect {STRANGER} || docker network create {STRANGER}")
    with ThreadPoolExecutor(len(TIED)) as pool:
        assert dict(zip(TIED, pool.map(reached, TIED), strict=True)) == TIED
    outwards = LISTENERS | ELSEWHERE
    assert set(in_gateway("python3", "-c", REACHED, *outwards).split()) == {f"{PROXY}:8080", f"{PROXY}:8083"}
    assert ways_out() == before
    assert on("vps1", "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "http://127.0.0.1:18789/") == "200"


def healthy(name: str) -> bool:
    """Return whether a container on VPS-1 is healthy."""
    requested = ("docker", "exec", f"{NAME}-vps1", "docker", "inspect", name, "--format", "{{.State.Health.Status}}")
    return subprocess.run(requested, capture_output=True, text=True, check=False).stdout.strip() == "healthy"


def test_each_network_reaches_its_listener_and_nothing_else():
    holds()


def test_root_in_the_gateway_reaches_only_listeners_without_firewall_rules():
    """Flush the rules. Until the firewall entrypoint restores them, containers can reach only the listeners."""
    before = ways_out()
    flush = "iptables -F; iptables -t nat -F EGRESS-SHARED-PORT; ip6tables -F"
    requested = ("docker", "exec", "--user", "0:0", "openclaw-gateway", "sh", "-c", f'{flush}; exec "$@"', "sh")
    every = LISTENERS - {SHARED_PORT}

    def found() -> set[str]:
        reached = set(on("vps1", *requested, "python3", "-c", REACHED, *LISTENERS, *ELSEWHERE).split())
        assert reached <= every
        return reached

    # Repeat the attempt, because the firewall entrypoint may restore the rules during an attempt.
    assert soon(lambda: found() == every)
    assert ways_out() == before


PEERS = ("macvlan", "ipvlan")
ANSWERED = """
import socket, sys
for target in sys.argv[1:]:
    host, _, port = target.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), 4) as sock:
            sock.sendall(b"GET http://www.example.com/ HTTP/1.1\\r\\nHost: www.example.com\\r\\n\\r\\n")
            if sock.recv(1):
                print(target)
    except OSError:
        pass
"""


@pytest.mark.parametrize("driver", PEERS)
def test_unknown_host_on_the_internal_network_is_not_served(driver):
    """Add an unknown host to the internal network, as any client of the gateway's Docker daemon can."""
    name = f"an-agents-{driver}"
    at = ("--subnet", SUBNET, "--gateway", FORWARDER, "--opt", "parent=eth0")
    in_gateway("docker", "network", "create", "--driver", driver, *at, name)
    try:
        container = ("docker", "run", "--rm", "--network", name, "--ip", "172.31.250.77", IMAGE, "python3", "-c")
        try:
            in_gateway(*container, "")
        except AssertionError as problem:
            if "operation not supported" in str(problem):
                pytest.skip(f"this kernel has no {driver}: {problem}")
            raise
        # Connections to listeners may succeed, because the kernel accepts them. The proxy must then close them without
        # a response.
        assert set(in_gateway(*container, REACHED, *LISTENERS, *ELSEWHERE, *INWARDS).split()) <= LISTENERS
        assert in_gateway(*container, ANSWERED, *LISTENERS).split() == []
    finally:
        in_gateway("docker", "network", "rm", name)


def test_records_in_loki_cannot_be_read_or_forged_through_the_proxy():
    ask = """const [method, path] = process.argv.slice(1); require('http')
      .request({host: '172.31.250.2', port: 8080, method, path: 'http://10.0.0.2:3100' + path,
                headers: {host: '10.0.0.2:3100'}}, r => { console.log(r.statusCode); process.exit() }).end('{}')"""
    for method, path in (
        ("GET", "/loki/api/v1/query_range?query=%7Bservice_name%3D%22openclaw-proxy%22%7D"),
        ("POST", "/loki/api/v1/push"),
        ("GET", "/otlp/v1/logs"),
        ("POST", "/otlp/v1/logs/../../../loki/api/v1/push"),
    ):
        assert in_gateway("env", "-u", "NODE_USE_ENV_PROXY", "node", "-e", ask, method, path).strip() == "403"


SPOOFED = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
    plain.bind(("172.30.0.77", 0))
    for port in (53, 443, 4500):
        plain.sendto(b"past the proxy", ("198.51.100.66", port))
print("sent")
"""


def sent_without_rules(*inside: str) -> str:
    """Flush the firewall rules, then send UDP packets directly. Return `sent`.

    Return an empty text if the firewall entrypoint restored the rules before the packets were sent.
    """
    try:
        return on("vps1", *inside, "sh", "-c", 'iptables -F; exec "$@"', "sh", "python3", "-c", SPOOFED).strip()
    except AssertionError as problem:
        if "Operation not permitted" not in str(problem):
            raise
        return ""


def test_proxy_and_ingress_forwarder_do_not_route():
    """Use each container that is on both networks as the default router. It must not forward packets."""
    pid = on("vps1", "docker", "inspect", "--format", "{{.State.Pid}}", "openclaw-gateway").strip()
    inside = ("nsenter", "--target", pid, "--net")
    before = ways_out()
    on("vps1", *inside, "ip", "address", "add", "172.30.0.77/32", "dev", "lo")
    try:
        for router in (PROXY, FORWARDER):
            on("vps1", *inside, "ip", "route", "replace", "default", "via", router)
            assert soon(lambda: sent_without_rules(*inside)) == "sent"
    finally:
        on("vps1", *inside, "ip", "route", "replace", "default", "via", FORWARDER)
        on("vps1", *inside, "ip", "address", "del", "172.30.0.77/32", "dev", "lo")
    assert not soon(lambda: ways_out() != before, 2)


def test_openclaw_started_the_sandbox_on_the_network_of_its_class():
    assert in_gateway("docker", "inspect", "--format", "{{.HostConfig.NetworkMode}}", sandbox()).strip() == (
        "openclaw-egress-sandbox"
    )
    assert sandbox_settings()["browser"]["network"] == "openclaw-egress-browser"


def test_containers_cannot_resolve_external_names():
    resolve = """
import socket
try:
    print(socket.getaddrinfo("www.example.com", 443))
except OSError as problem:
    print("none:", problem)
"""
    for ask in (in_sandbox, in_gateway):
        assert ask("python3", "-c", resolve).startswith("none")


def test_agent_turn_works_and_is_recorded_at_the_level_network():
    def responded() -> list[str]:
        # Count only POST requests, which are model calls: the browsers of other tests also request favicons.
        return [entry["request_body_sha256"] for entry in provider_log() if entry.get("method") == "POST"]

    before = responded()
    assert "Hello from the provider stand-in" in agent_turn("hello at the level network")
    new = responded()[len(before) :]
    query = f'{{service_name="openclaw-proxy"}} |= "{new[-1]}"'
    assert soon(lambda: loki(query)), "no record in Loki has the digest of the request that the provider received"


def test_the_published_port_sees_the_peers_own_address():
    serve = "require('http').createServer((q, s) => s.end(q.socket.remoteAddress)).listen(18790)"
    on("vps1", "docker", "exec", "--detach", "openclaw-gateway", "timeout", "60", "node", "-e", serve)
    form = '{{(index .NetworkSettings.Networks "openclaw-gateway-net").IPAddress}}'
    forwarder = on("vps1", "docker", "inspect", "--format", form, "openclaw-ingress-forwarder").strip()
    peer = soon(lambda: on("vps1", "sh", "-c", f"curl -sS --max-time 5 http://{forwarder}:18790/ || true"))
    assert peer == "::ffff:172.30.0.1", "the peer's address must be the same as without the ingress forwarder"


def test_openclaw_controls_a_browser_over_its_published_port():
    settings = sandbox_settings()
    name = in_gateway(
        *("docker", "run", "--detach", "--rm", "--network", settings["browser"]["network"], "--tmpfs", "/tmp"),
        *("--publish", "127.0.0.1:19222:9222", "openclaw-sandbox-browser:bookworm-slim"),
    ).strip()
    ask = "fetch('http://127.0.0.1:19222/json/version').then(r => r.text()).then(console.log, () => {})"
    try:
        assert "Chrome/" in soon(lambda: in_gateway("env", "-u", "NODE_USE_ENV_PROXY", "node", "-e", ask))
        # Check that other containers can reach neither the browser's container nor its published port.
        form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        address = in_gateway("docker", "inspect", "--format", form, name).strip()
        assert in_sandbox("python3", "-c", REACHED, f"{address}:9222", f"{GATEWAY}:19222", "172.18.0.1:19222") == ""
    finally:
        in_gateway("docker", "rm", "--force", name)


def test_the_nested_daemon_pulls_and_builds_through_its_class():
    made = in_gateway(
        "sh", "-c",
        """set -e; mkdir -p /tmp/build; cd /tmp/build; cp /etc/docker/certs.d/registry.example.com/ca.crt ca.pem
        cat > Dockerfile <<'END'
FROM registry.example.com/lab/hello:1
COPY ca.pem /ca.pem
RUN pip install --quiet --break-system-packages --cert /ca.pem --index-url https://packages.example.com/simple lab-hello
RUN curl --silent --show-error --cacert /ca.pem https://www.example.com/ 2>&1 | grep 403
END
        docker pull --quiet registry.example.com/lab/hello:1 && docker build --quiet --no-cache . 2>&1""",
    )  # fmt: skip
    assert made.split()[0] == "registry.example.com/lab/hello:1" and "sha256:" in made


def test_nested_daemon_keeps_the_operators_settings():
    settings = json.loads(in_gateway("cat", "/etc/docker/daemon.json"))
    assert settings["log-level"] == "warn" and settings["proxies"]["https-proxy"] == f"http://{PROXY}:8083"


def test_the_gateways_telemetry_reaches_vps2_through_the_proxy():
    send = """require('http')
      .request('http://10.0.0.2:4318/v1/traces', {method: 'POST'}, r => { console.log(r.statusCode); process.exit() })
      .end('{"resourceSpans": []}')"""
    assert in_gateway("node", "--require", "./proxy-bootstrap.cjs", "-e", send).strip() == "200"
    assert any(entry["path"] == "/v1/traces" and entry["peer"].startswith("10.0.0.1") for entry in telemetry())


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--network=none"], "it is on no network"),
        (["--network=openclaw-gateway-net", "--cap-add=NET_ADMIN"], "not on the internal network only"),
        (["--network=openclaw-egress", "--user=node"], "only root can"),
        (["--network=openclaw-egress"], "no route to"),
    ],
    ids=["no network", "a way out", "no root", "no right to"],
)
def test_gateway_does_not_start_without_its_firewall(options, why):
    scripts = "/home/openclaw/openclaw-egress/network-enforcement:/opt/openclaw-egress:ro"
    words = ("--entrypoint=/opt/openclaw-egress/firewall-entrypoint", "openclaw:local")
    arguments = (PROXY, FORWARDER, SUBNET, "3128", "8080", "--", "echo", "started")
    container = ("docker", "run", "--rm", "--user=0:0", "--volume", scripts, *options, *words, *arguments)
    command = ("docker", "exec", f"{NAME}-vps1", *container)
    done = completed(command)
    assert done.returncode == 78 and "started" not in done.stdout
    assert "the gateway does not start" in done.stderr and why in done.stderr


IN_GATEWAY = {
    "nested daemon": "kill $(cat /var/run/docker.pid); sleep 5; rm -f /var/run/docker.pid;"
    " dockerd --dns 198.51.100.10 >/var/log/dockerd.log 2>&1 & sleep 5",
    "rules flushed": "iptables -F; iptables -t nat -F EGRESS-SHARED-PORT; iptables -X EGRESS-INPUT; sleep 5; true",
    "networks pruned": "docker rm -f $(docker ps -aq); docker network prune -f; sleep 8",
}
RESTARTS = {
    "proxy": "docker restart openclaw-proxy",
    "ingress forwarder": "docker restart openclaw-ingress-forwarder",
    # Simulate a crash: the PID file of an old containerd remains, and another process now has that PID.
    "gateway": "docker exec openclaw-gateway sh -c 'echo 1 >/var/run/docker/containerd/containerd.pid';"
    " docker restart openclaw-gateway",
    "gateway without proxy": "docker stop openclaw-proxy; docker restart openclaw-gateway; docker start openclaw-proxy",
    **{name: f"docker exec openclaw-gateway sh -c '{command}'" for name, command in IN_GATEWAY.items()},
}


def test_gateway_stops_if_its_rules_cannot_be_restored():
    """Disable iptables-restore and flush the rules. The container must stop, and start again with its rules."""
    form = "{{.State.StartedAt}}"

    def started() -> str:
        return on("vps1", "docker", "inspect", "--format", form, "openclaw-gateway").strip()

    before, since = ways_out(), started()
    break_it = "iptables -F; mount --bind /bin/false $(readlink -f $(command -v iptables-restore))"
    on("vps1", "docker", "exec", "--user", "0:0", "openclaw-gateway", "sh", "-ec", break_it)
    assert soon(lambda: started() != since, 60), on("vps1", "docker", "logs", "--tail", "20", "openclaw-gateway")
    assert soon(lambda: healthy("openclaw-gateway"), 120)
    assert ways_out() == before
    holds()


@pytest.mark.parametrize("command", RESTARTS.values(), ids=RESTARTS)
def test_network_enforcement_holds_after_each_kind_of_restart(command):
    on("vps1", "sh", "-c", command)
    assert soon(lambda: healthy("openclaw-gateway") and healthy("openclaw-proxy"), 120)
    holds()


def test_network_enforcement_holds_after_a_host_reboot():
    run("docker", "restart", f"{NAME}-vps1")
    assert soon(lambda: healthy("openclaw-gateway") and healthy("openclaw-proxy"), 180)
    holds()
    assert "<h1>It works</h1>" in page("https://www.example.com/")
    assert "Hello from the provider stand-in" in agent_turn("hello after the reboot")
