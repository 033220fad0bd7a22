"""Tests of projects that operators run in other ways than the lab's own clone.

For each project, the fixture `deployed` starts it as its operator does, runs site.yml, sends a request with each client
of the gateway, and runs rollback.yml. It describes the project before, between and after. The tests compare the
descriptions, and print what they compared.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import os
import re
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from molecule.lab.hosts import KEY, NAME, ROOT, loki, on, run, soon

# Use a long timeout, because the fixture runs two playbooks.
pytestmark = pytest.mark.timeout(3000)

HERE = Path(__file__).parent
HOME = "/home/openclaw"
IMAGE = "registry.example.com/openclaw/openclaw:2026.9.6"
# The image of a registry contains the real OpenClaw.
PUBLISHED = 'FROM openclaw-lab-base\nWORKDIR /app\nUSER node\nCMD ["node", "openclaw.mjs", "gateway"]\n'
BOOTSTRAP = {"mount": "/etc/openclaw-egress/proxy-bootstrap.cjs", "image": "/app/proxy-bootstrap.cjs"}


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of project. Its files are in the directory with its name."""

    name: str
    container: str
    variables: dict[str, Any]
    # The way in which the gateway loads the bootstrap.
    bootstrap: str
    # The compose files that the operator names; none if they have default names.
    files: tuple[str, ...] = ()
    # The hosts of site.yml and of rollback.yml. The first project changes VPS-2, and the last restores it.
    site: str = "localhost,vps1"
    rollback: str = "localhost,vps1"

    @property
    def directory(self) -> str:
        return f"{HOME}/{self.name}"

    def compose(self, *words: str) -> None:
        files = [word for name in self.files for word in ("-f", f"{self.directory}/{name}")]
        command = ("docker", "compose", "--project-directory", self.directory, *files, *words)
        on("vps1", "runuser", "-u", "openclaw", "--", *command)


# The lab's kernel may have no dummy interfaces, so the networks of the classes have bridges without members as parents.
SIBLINGS: dict[str, Any] = {
    **yaml.safe_load((ROOT / "molecule/classes/policy.yml").read_text()),
    "openclaw_proxy_policy_cases": [],
    "openclaw_egress_class_networks": {
        "sandbox": {"name": "openclaw-egress-sandbox", "subnet": "172.31.251.0/24", "parent": "lab-sandbox"},
        "browser": {"name": "openclaw-egress-browser", "subnet": "172.31.252.0/24", "parent": "lab-browser"},
    },
}
PARENTS = """for name in lab-sandbox lab-browser; do
  ip link add "$name" type bridge 2>/dev/null || true
  ip link set "$name" up
done"""
# The techniques that try to bypass the proxy over the container's network. Omit the others, because `make attack`
# with all techniques takes minutes.
TECHNIQUES = {
    "direct_tcp", "direct_udp", "ping", "raw_ip", "borrowed_source_addresses", "frames", "ipv6_neighbours", "rerouting",
    "resolver_that_is_configured", "metadata_services", "other_classes_listeners", "containers_of_other_classes",
    "names_of_containers", "docker_socket", "health_and_metrics",
}  # fmt: skip

# Do not change OpenClaw's settings of sandboxes: the scenarios `default` and `rollback` test them, each change takes
# seconds, and the small gateway has no `openclaw` command. Some checks of verify.yml need that command too.
FIXED: dict[str, Any] = {"openclaw_gateway_sandboxes": False, "openclaw_egress_rollout_verify": False}
KINDS = (
    Kind(
        name="registry", container="registry-openclaw-gateway-1", bootstrap="mount",
        files=("a.yml", "b.yml"), site="all",
        variables={"openclaw_gateway_bootstrap": "mount", "openclaw_gateway_build_script": f"{HOME}/none.sh"} | FIXED,
    ),
    Kind(
        name="built", container="gateway-with-tini", rollback="all", bootstrap="image",
        variables={"openclaw_gateway_build_script": f"{HOME}/built/build.sh"} | SIBLINGS | FIXED,
    ),
)  # fmt: skip


def inside(kind: Kind, *words: str) -> str:
    """Run a command in the gateway's container."""
    return on("vps1", "docker", "exec", kind.container, *words)


def certificates(kind: Kind, path: str) -> list[str]:
    """Return a digest of each certificate in a file of the gateway's container."""
    blocks = re.findall(r"-----BEGIN CERTIFICATE-----(.+?)-----END", inside(kind, "cat", path), re.DOTALL)
    return sorted(hashlib.sha256(base64.b64decode(block)).hexdigest()[:12] for block in blocks)


FILES = r"""cd "$0" && find . -path ./config -prune -o -type f -printf '%P %m %u ' -exec sha256sum {} ';' \
  -o -type l -printf '%P link %u %l\n'"""


def flat(value: Any, path: str = "") -> dict[str, str]:
    """Return the values in nested settings, by their paths."""
    if not isinstance(value, dict):
        return {path: json.dumps(value)}
    return {name: leaf for key, item in value.items() for name, leaf in flat(item, f"{path}.{key}").items()}


def described(kind: Kind) -> dict[str, Any]:
    """Return the settings of the gateway's container and of its project, in groups with names."""
    found = json.loads(on("vps1", "docker", "inspect", kind.container))[0]
    config = found["Config"]
    labels = {name.removeprefix("com.docker.compose.project."): value for name, value in config["Labels"].items()}
    environment = dict(entry.split("=", 1) for entry in config["Env"])
    text = on("vps1", "sh", "-c", 'cat "$0"/.env 2>/dev/null || true', kind.directory)
    settings = on("vps1", "sh", "-c", 'cat "$0"/config/openclaw.json 2>/dev/null || echo "{}"', kind.directory)
    return {
        "environment": environment,
        "volumes": {
            mount["Destination"]: f"{mount['Type']} {mount.get('Name') or mount['Source']} {mount['RW']}"
            for mount in found["Mounts"]
        },
        "files": dict(line.split(" ", 1) for line in on("vps1", "sh", "-c", FILES, kind.directory).splitlines()),
        "lines of .env": [line for line in text.splitlines() if not line.startswith("COMPOSE_FILE=")],
        "files in a volume": [inside(kind, "sh", "-c", 'cat "$HOME/notes" 2>/dev/null || true')],
        "CA certificates": certificates(kind, environment["NODE_EXTRA_CA_CERTS"]),
        "networks": sorted(found["NetworkSettings"]["Networks"]),
        "compose files": labels["config_files"].split(","),
        "command": [*(config["Entrypoint"] or []), *(config["Cmd"] or [])],
        "image": [found["Image"]],
        # Ignore `meta`, which OpenClaw adds when it writes the file.
        "OpenClaw's settings": {
            name: value for name, value in flat(json.loads(settings)).items() if not name.startswith(".meta.")
        },
    }


def lost(kind: Kind, before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return the parts of the operator's settings that the deployed project no longer has.

    site.yml may add to each part. It may also extend three variables and the command, and edit `.env`, whose lines are
    a part of their own. If it adds the bootstrap to the image, it also edits the build script and builds the image.
    """
    wrong = []
    extended = {
        "NO_PROXY": lambda had, has: set(had.split(",")) <= set(has.split(",")),
        "NODE_OPTIONS": lambda had, has: has in (had, f"--require {BOOTSTRAP[kind.bootstrap]} {had}"),
        "NODE_EXTRA_CA_CERTS": lambda had, has: has == "/etc/ssl/certs/proxy-ca.pem",
    }
    edited = {".env"} | ({"build.sh"} if kind.bootstrap == "image" else set())
    for part, had in before.items():
        has = after[part]
        if part == "command":
            has = [word for word in has if word != "--require" and not word.endswith("proxy-bootstrap.cjs")]
            wrong += [] if had == has else [f"command: {had} became {has}"]
        elif part == "image":
            wrong += [] if had == has or kind.bootstrap == "image" else [f"image: {had} became {has}"]
        elif isinstance(had, dict):
            for name, value in had.items():
                same = extended.get(name, str.__eq__) if part == "environment" else str.__eq__
                if not same(value, has.get(name, "")) and not (part == "files" and name in edited):
                    wrong.append(f"{part}: {name} was {value} and is {has.get(name)}")
        else:
            wrong += [f"{part}: {item} is missing" for item in had if item not in has]
    return wrong


def play(playbook: str, hosts: str, kind: Kind, **more: str) -> float:
    """Run a playbook in the lab, and return its duration in seconds. If it fails, raise an error with its output."""
    began = time.monotonic()
    variables = json.dumps({"openclaw_egress_compose_dir": kind.directory, **kind.variables, **more})
    words = ("ansible-playbook", "-i", "molecule/lab/inventory", "--limit", hosts, "-e", variables)
    done = subprocess.run(
        [*words, f"openclaw.egress.{playbook}"], cwd=ROOT, env=os.environ | {"ANSIBLE_NOCOLOR": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return time.monotonic() - began


def attack(level: str) -> list[dict[str, Any]]:
    """Attack from a sibling sandbox of each class. Return the results that do not meet their goal."""
    program = (
        "import json, sys; from tests.security.__main__ import everything_from_siblings;"
        " print(json.dumps(everything_from_siblings(sys.argv[1], sys.argv[2:])))"
    )
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT}/files/addon:{ROOT}/molecule"}
    rows = json.loads(run(sys.executable, "-c", program, level, *sorted(TECHNIQUES), env=environment).splitlines()[-1])
    assert len(rows) >= 2 * len(TECHNIQUES), "some techniques did not run"
    return [row for row in rows if not row["met"]]


def networks() -> list[str]:
    return sorted(on("vps1", "docker", "network", "ls", "--format", "{{.Name}} {{.Driver}}").splitlines())


def images() -> set[str]:
    """Return the images on VPS-1, except the proxy's."""
    names = on("vps1", "docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").splitlines()
    return {name for name in names if not name.startswith("openclaw-proxy:")}


COPY = """tar -C "$0" -c --owner=0 --group=0 . | docker exec -i "$1" sh -c 'mkdir -p "$0" && tar -C "$0" -x' "$2" """
OPERATORS = """cd "$0"
mkdir certs && cp /etc/lab/internet-ca.pem certs/corp.pem
test ! -d image || cp certs/corp.pem image/
test ! -e dot-env || mv dot-env .env
chown -R openclaw:openclaw .
test ! -d config || chown -R 1000:1000 config"""


def prepare(kind: Kind) -> None:
    """Copy the project to VPS-1, and start it as its operator does."""
    run("sh", "-c", COPY, str(HERE / kind.name), f"{NAME}-vps1", kind.directory)
    if kind.bootstrap == "image":
        run("sh", "-c", COPY, str(HERE / "image"), f"{NAME}-vps1", f"{kind.directory}/image")
    on("vps1", "sh", "-ec", OPERATORS, kind.directory)
    on("vps1", "sh", "-ec", PARENTS)
    if kind.bootstrap == "image":
        on("vps1", "runuser", "-u", "openclaw", "--", "bash", f"{kind.directory}/build.sh")
    else:
        on("vps1", "sh", "-c", 'printf "%s" "$0" | docker build --quiet --tag "$1" -', PUBLISHED, IMAGE)
    kind.compose("up", "--detach")
    # Do not use `up --wait`: it fails if the container is unhealthy once.
    form = "{{if .State.Health}}{{.State.Health.Status}}{{else}}{{.State.Status}}{{end}}"
    state = ("docker", "inspect", "--format", form, kind.container)
    assert soon(lambda: on("vps1", *state).strip() in ("healthy", "running"), 300), on("vps1", *state)
    if kind.files:
        inside(kind, "sh", "-c", 'echo "written by the operator" >"$HOME/notes"')


def remove(kind: Kind) -> None:
    """Remove the project, with its volumes and its image, from VPS-1."""
    kind.compose("down", "--volumes", "--rmi", "all")
    on("vps1", "rm", "-r", kind.directory)
    on("vps1", "sh", "-c", "for name in lab-sandbox lab-browser; do ip link delete $name || true; done")


def dial(kind: Kind, name: str) -> dict[str, Any]:
    """Send a request with each client of `image/dials.cjs` from the gateway. Return the status of each."""
    if kind.bootstrap == "image":
        # The small gateway sends them itself, so its own command must have loaded the bootstrap.
        ask = f"fetch('http://127.0.0.1:18789/dial/{name}').then(r => r.text()).then(console.log)"
        return json.loads(inside(kind, "env", "NODE_OPTIONS=", "node", "-e", ask))
    # OpenClaw has no such command. Send them from another process, as verify.yml does.
    words = ("docker", "exec", "--interactive", f"{NAME}-vps1", "docker", "exec", "--interactive", kind.container)
    script = (HERE / "image/dials.cjs").read_text()
    return json.loads(run(*words, "node", "--require", BOOTSTRAP["mount"], "-", name, input=script))


def turn(kind: Kind, text: str) -> str:
    """Run one turn of the real OpenClaw in the gateway's container. Return its reply."""
    settings = {
        "ANTHROPIC_API_KEY": KEY,
        # The agent has its own state, because the running gateway locks its state.
        "OPENCLAW_STATE_DIR": "/tmp/agent",
        "OPENCLAW_CONFIG_PATH": "/home/node/.openclaw/openclaw.json",
    }
    words = ("node", "--require", BOOTSTRAP["mount"], "openclaw.mjs", "agent", "--local", "--session-id", "lab")
    environment = [f"{name}={value}" for name, value in settings.items()]
    return inside(kind, "env", *environment, *words, "--model", "anthropic/claude-opus-5", "--message", text)


def records(name: str) -> dict[str, tuple[str, int]]:
    """Return class and status of the request of each client in a run of `dial`, from the proxy's records."""
    text = on("vps1", "docker", "exec", "openclaw-proxy", "egress", "records", "--json", "--limit", "100")
    found = [record for record in map(json.loads, text.splitlines()) if f"/{name}/" in record.get("url", "")]
    return {record["url"].rpartition("/")[2]: (record["class"], record["status"]) for record in found}


@dataclasses.dataclass
class Deployed:
    """The results that the fixture `deployed` collected for one project."""

    kind: Kind
    before: dict[str, Any]
    after: dict[str, Any] = dataclasses.field(default_factory=dict)
    rolled_back: dict[str, Any] = dataclasses.field(default_factory=dict)
    # The images that exist only after site.yml, except the proxy's.
    built: set[str] = dataclasses.field(default_factory=set)
    dials: dict[str, Any] = dataclasses.field(default_factory=dict)
    records: dict[str, tuple[str, int]] = dataclasses.field(default_factory=dict)
    turn: str = ""
    # The networks of VPS-1 before site.yml and after rollback.yml, and failed attacks from siblings at each level.
    networks: list[list[str]] = dataclasses.field(default_factory=list)
    attacks: dict[str, list[dict[str, Any]]] = dataclasses.field(default_factory=dict)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.name)
def deployed(request: pytest.FixtureRequest) -> Deployed:
    """Start a project, deploy to it, use it and roll it back. Return the descriptions and the results."""
    kind: Kind = request.param
    name = f"run{secrets.token_hex(4)}"
    prepare(kind)
    try:
        seen, had = Deployed(kind, described(kind), networks=[networks()]), images()
        began = time.monotonic()
        try:
            seen.seconds["site.yml"] = play("site", kind.site, kind)
            if kind.bootstrap == "mount":
                seen.turn = turn(kind, f"Please answer {name}")
                query = f'{{service_name="openclaw-proxy"}} | event_name="openclaw.egress.exchange" |= `{name}`'
                assert soon(lambda: loki(query)), "no record of the agent turn in Loki"
                seen.seconds["from the start of site.yml to the record of a turn in Loki"] = time.monotonic() - began
            seen.dials = dial(kind, name)
            seen.records = soon(lambda: records(name))
            seen.after, seen.built = described(kind), images() - had
            if kind.bootstrap == "image":
                began = time.monotonic()
                seen.attacks["application"] = attack("application")
                play("site", kind.site, kind, openclaw_gateway_enforcement="network")
                seen.attacks["network"] = attack("network")
                seen.seconds["sibling sandboxes at both levels"] = time.monotonic() - began
        finally:
            seen.seconds["rollback.yml"] = play("rollback", kind.rollback, kind)
        seen.rolled_back = described(kind)
        seen.networks.append(networks())
    finally:
        remove(kind)
    return seen


def test_every_client_reaches_the_proxy_in_the_class_gateway(deployed, capsys):
    tried = {name: status for name, status in deployed.dials.items() if status is not None and name != "tunnelled"}
    with capsys.disabled():
        print(f"\n{deployed.kind.name}: status of each client: {deployed.dials}")
        for name, seconds in deployed.seconds.items():
            print(f"{deployed.kind.name}: {name}: {seconds:.0f} s")
    assert {"fetch", "https-own-agent", "ws", "spawned-node"} <= set(tried)
    assert deployed.records == {name: ("gateway", status) for name, status in tried.items()}


def test_operators_certificates_are_trusted_beside_the_proxys(deployed):
    """Expect success from a server whose certificate the operator's CA signed, through a tunnel of the proxy."""
    assert deployed.dials["tunnelled"] == 200
    assert len(deployed.after["CA certificates"]) == len(deployed.before["CA certificates"]) + 1


def test_image_of_a_registry_is_used_without_any_build(deployed):
    if deployed.kind.bootstrap == "image":
        assert {name.split()[0] for name in deployed.built} >= {"built-openclaw-gateway:latest"}
    else:
        assert deployed.built == set() and deployed.after["image"] == deployed.before["image"]
        assert "Hello from the provider stand-in" in deployed.turn


def test_settings_of_the_operator_are_kept(deployed, capsys):
    with capsys.disabled():
        for when in ("before", "after", "rolled_back"):
            parts = ", ".join(f"{len(items)} {part}" for part, items in getattr(deployed, when).items())
            print(f"\n{deployed.kind.name}, {when}: {parts}", end="")
        print(f"\n{deployed.kind.name}: {deployed.after['command']} in {deployed.after['networks']}")
        print(f"{deployed.kind.name}: {deployed.after['volumes']}")
    assert lost(deployed.kind, deployed.before, deployed.after) == []


def test_rollback_restores_the_project(deployed):
    assert deployed.rolled_back == deployed.before
    assert deployed.networks[0] == deployed.networks[1]


def test_sibling_sandboxes_reach_only_what_their_class_may(deployed):
    if deployed.kind.bootstrap != "image":
        pytest.skip("this project has no Docker socket")
    assert deployed.attacks == {"application": [], "network": []}
