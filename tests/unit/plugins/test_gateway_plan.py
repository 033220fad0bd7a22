"""Tests that compare the gateway's plan with one golden file per deployment.

Each file contains the operator's compose files, the image, the container, the options, and the expected plan without
empty values. It also contains the output of Compose 2.26.1 for the compose files, uninterpolated and interpolated.
"""

import ast
import copy
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.openclaw.egress.plugins.module_utils.gateway_plan import PROXY_VARIABLES, Options, make_plan

ROOT = Path(__file__).parents[3]
PLANS = Path(__file__).parent / "golden" / "plans"
CASES = {path.stem: path for path in sorted(PLANS.glob("*.yml"))}


def planned(given: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Return the plan for the input in a golden file. Omit empty values and the messages of problems and warnings."""
    found = make_plan(
        given.get("uninterpolated"),
        given.get("interpolated"),
        given.get("image"),
        given.get("container"),
        Options(**{"service": "openclaw-gateway", **given.get("options", {}), **options}),
    ).as_dict()
    for kind in ("problems", "warnings"):
        for item in found[kind]:
            assert item.pop("message").startswith(f"{item['where']}: {item['found']}. ")
    return {name: value for name, value in found.items() if value not in (None, [], {}, "")}


@pytest.mark.parametrize("name", CASES)
def test_plan_equals_the_golden_file(name):
    case = yaml.safe_load(CASES[name].read_text())
    given = copy.deepcopy(case["given"])
    assert planned(given) == case["plan"]
    assert given == case["given"], "the plan changed its input"


@pytest.mark.parametrize("name", CASES)
def test_each_problem_states_place_finding_and_remedy(name):
    plan = yaml.safe_load(CASES[name].read_text())["plan"]
    for item in [*plan.get("problems", []), *plan.get("warnings", [])]:
        assert item["code"] and item["where"] and item["found"] and item["remedy"].endswith(".")
        assert item["level"] in ("application", "network")


def started(service: dict[str, Any], image: dict[str, Any]) -> list[str]:
    """Combine entrypoint and command of a service as Docker (moby) does. Return the command line that it starts."""

    def words(value: str | list[str]) -> list[str]:
        # Replace each variable by its default value, because no variable is set.
        def plain(text: str) -> str:
            return re.sub(r"(?<!\$)\$\{\w+(?::?[-?]([^}]*))?\}", r"\1", text).replace("$$", "$")

        return shlex.split(plain(value)) if isinstance(value, str) else [plain(word) for word in value]

    entrypoint, command = service.get("entrypoint"), words(service.get("command") or [])
    if entrypoint:
        return words(entrypoint) + command
    own = image.get("Entrypoint") or [] if entrypoint is None else []
    return own + (command or image.get("Cmd") or [])


def has_no_obstacle(name: str) -> bool:
    return "problems" not in yaml.safe_load(CASES[name].read_text())["plan"]


@pytest.mark.parametrize("name", [name for name in CASES if has_no_obstacle(name)])
def test_gateway_keeps_the_operators_command_and_loads_the_bootstrap_once(name):
    case = yaml.safe_load(CASES[name].read_text())
    given, plan = case["given"], case["plan"]
    image = given.get("image", {})
    service = given.get("interpolated", given.get("uninterpolated"))["services"]["openclaw-gateway"]
    ours = {setting: plan[setting] for setting in ("entrypoint", "command") if setting in plan}
    words = started(service | ours, image)
    if given.get("options", {}).get("enforcement") == "network":
        assert words[0] == "/opt/openclaw-egress/firewall-entrypoint"
        words = words[words.index("--") + 1 :]
    required = ["--require", plan["bootstrap"]]
    if plan["loaded_by"] == "NODE_OPTIONS":
        assert plan["environment"]["NODE_OPTIONS"].startswith(" ".join(required))
        assert "--require" not in words
    else:
        at = words.index("--require")
        path = words[at + 1] if words[at + 1][0] == "/" else f"{image.get('WorkingDir', '/app')}{words[at + 1][1:]}"
        assert path == plan["bootstrap"] and Path(words[at - 1]).name == "node"
        del words[at : at + 2]
        assert "NODE_OPTIONS" not in plan["environment"]
    assert words == started(service, image)


def test_each_code_is_documented_and_has_a_case():
    source = (ROOT / "plugins/module_utils/gateway_plan.py").read_text()
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    made = {
        node.args[0].value
        for node in calls
        if isinstance(node.func, ast.Name)
        and node.func.id in ("Problem", "differs", "lacks")
        and isinstance(node.args[0], ast.Constant)
    } | {"other-command", "other-entrypoint"}
    plans = [yaml.safe_load(path.read_text())["plan"] for path in CASES.values()]
    cases = {item["code"] for plan in plans for kind in ("problems", "warnings") for item in plan.get(kind, [])}
    projects = (Path(__file__).parent / "compose_projects").glob("*/case.yml")
    cases |= {code for path in projects if (code := yaml.safe_load(path.read_text()).get("refused"))}
    documented = re.search(r"Codes: (.+?)\.\n", (ROOT / "plugins/modules/openclaw_gateway_plan.py").read_text(), re.S)
    assert set(re.findall(r"C\(([a-z-]+)\)", documented[1])) == made
    assert cases == made


def test_every_form_of_network_and_extra_host_is_read():
    base = {"name": "p", "services": {"openclaw-gateway": {"command": ["node", "x"]}}}
    for networks, joined in (
        (None, {"default": {}, "openclaw-gateway-net": {}}),
        (["a"], {"openclaw-gateway-net": {}}),
        ({"a": None}, {"openclaw-gateway-net": {}}),
        (["default", "b"], None),
    ):
        project = copy.deepcopy(base) | {"networks": {"b": {"external": {"name": "openclaw-gateway-net"}}}}
        project["services"]["openclaw-gateway"]["networks"] = networks
        assert planned({"interpolated": project}).get("networks") == joined
    for hosts in (["nas:192.168.1.5"], ["nas=192.168.1.5"], {"nas": "192.168.1.5"}, {"nas": ["192.168.1.5"]}):
        project = copy.deepcopy(base)
        project["services"]["openclaw-gateway"]["extra_hosts"] = hosts
        assert planned({"interpolated": project})["environment"]["NO_PROXY"] == "nas"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["env", "-i", "node", "x"], "environment-cleared"),
        (["sh", "-c", "/usr/bin/env - node x"], "environment-cleared"),
        (["sh", "-c", "chown -R node /data && exec su - node -c 'node x'"], "environment-cleared"),
        (["runuser", "-l", "node", "-c", "node x"], "environment-cleared"),
        (["sudo", "-u", "node", "node", "x"], "environment-cleared"),
        (["tini", "--", "sudo", "-u", "node", "node", "x"], "environment-cleared"),
        (["sudo", "-E", "-u", "node", "node", "x"], None),
        (["sudo", "-u", "node", "--preserve-env", "node", "x"], None),
        (["su", "node", "-c", "node x"], None),
        (["env", "A=1", "node", "x"], None),
        (["sh", "-c", "apt-get install -y sudo && node x"], None),
        (["sh", "-c", "exec node x --su -"], None),
        (["sh", "-c", "export NODE_OPTIONS=--inspect; node x"], "variable-overridden"),
        (["env", "NODE_OPTIONS=--inspect", "node", "x"], "variable-overridden"),
        (["sh", "-c", 'NODE_OPTIONS="--inspect $${NODE_OPTIONS}" node x'], None),
        (["sh", "-c", "HTTPS_PROXY= node x"], "variable-overridden"),
        (["sh", "-c", "MY_HTTPS_PROXY=1 node x --https-proxy=1"], None),
    ],
)
def test_a_command_that_drops_our_variables_is_refused(command, code):
    project = {"services": {"openclaw-gateway": {"command": command, "networks": ["openclaw-gateway-net"]}}}
    project["networks"] = {"openclaw-gateway-net": {"external": True}}
    assert [item["code"] for item in planned({"interpolated": project}).get("problems", [])] == ([code] if code else [])


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["su", "-s", "/bin/sh", "-", "node", "-c", "node x"], "environment-cleared"),
        (["su", "-s", "/bin/sh", "node", "-c", "node x - -l"], None),
        (["runuser", "-u", "node", "--", "node", "x", "-l"], None),
        (["setpriv", "--reuid=node", "--reset-env", "node", "x"], "environment-cleared"),
        (["setpriv", "--reuid=node", "--clear-groups", "node", "x"], None),
        (["sudo", "-EH", "-u", "node", "node", "x"], None),
        (["sh", "-c", "unset https_proxy NO_PROXY; node x"], "variable-overridden"),
        (["sh", "-c", "unset NODE_OPTIONS\nexec node x"], "variable-overridden"),
        (["sh", "-c", "unset FOO; node x"], None),
        (["env", "-u", "HTTPS_PROXY", "node", "x"], "variable-overridden"),
        (["env", "--unset=HTTPS_PROXY", "node", "x"], "variable-overridden"),
        (["node", "x", "-u", "HTTPS"], None),
    ],
)
def test_a_command_that_removes_our_variables_is_refused(command, code):
    project = {"services": {"openclaw-gateway": {"command": command, "network_mode": "host"}}}
    assert {item["code"] for item in planned({"interpolated": project}).get("problems", [])} == ({code} - {None})


def test_refusal_of_an_inactive_profile_names_the_profile():
    raw = {"services": {"openclaw-gateway": {"profiles": ["claw", "all"]}, "db": {}}}
    given = {"uninterpolated": raw, "interpolated": {"services": {"db": {}}}}
    [problem] = planned(given, env_file="/srv/.env")["problems"]
    assert problem["code"] == "no-service"
    assert problem["remedy"].endswith("Set COMPOSE_PROFILES=claw in /srv/.env.")


@pytest.mark.parametrize(
    ("url", "enforcement", "expected"),
    [
        ("http://openclaw-proxy:8080", "application", "http://172.30.0.250:8080"),
        ("http://openclaw-proxy:8090", "application", "http://172.30.0.250:8090"),
        ("http://10.0.0.9:8080", "application", "http://10.0.0.9:8080"),
        ("http://proxy.example.com:8080", "application", None),
        ("http://openclaw-proxy:8080", "network", None),
    ],
)
def test_gateway_on_the_hosts_network_uses_the_address_of_the_proxy(url, enforcement, expected):
    project = {"services": {"openclaw-gateway": {"command": ["node", "x"], "network_mode": "host"}}}
    plan = planned({"interpolated": project}, proxy_url=url, enforcement=enforcement)
    if expected is None:
        assert "network-mode" in [item["code"] for item in plan["problems"]]
    else:
        assert plan["environment"]["HTTPS_PROXY"] == expected and "problems" not in plan


@pytest.mark.parametrize(
    ("services", "network", "where"),
    [
        ({"openclaw-proxy-ui": {}}, None, "services.openclaw-proxy-ui"),
        ({"caddy": {"container_name": "openclaw-proxy"}}, None, "services.caddy.container_name"),
        ({}, {"name": "other", "external": True}, "networks.openclaw-gateway-net"),
        ({}, {"name": "openclaw-gateway-net"}, None),
    ],
)
def test_names_of_the_role_cannot_be_used_by_the_project(services, network, where):
    project = {"name": "p", "services": {"openclaw-gateway": {"command": ["node", "x"]}, **services}}
    project["networks"] = {"openclaw-gateway-net": network} if network else {}
    found = planned({"interpolated": project}).get("problems", [])
    assert [(item["code"], item["where"]) for item in found] == ([("name-taken", where)] if where else [])


@pytest.mark.parametrize(
    ("test", "image", "direct"),
    [
        ("curl -f http://0.0.0.0:18789/healthz || exit 1", {}, "0.0.0.0"),
        (["CMD", "wget", "-q", "http://claw:18789/healthz"], {}, "claw"),
        (["CMD", "curl", "https://api.example.com/"], {}, None),
        (None, {"Healthcheck": {"Test": ["CMD-SHELL", "curl http://[::]:1/ http://10.1.2.3/"]}}, "10.1.2.3"),
    ],
)
def test_local_hosts_of_the_health_check_need_no_proxy(test, image, direct):
    service = {"command": ["node", "x"], "network_mode": "host", "healthcheck": {"test": test}}
    plan = planned({"interpolated": {"services": {"openclaw-gateway": service}}, "image": image})
    assert plan["environment"].get("NO_PROXY") == (direct or "")
    disabled = service | {"healthcheck": {"disable": True, "test": test}}
    plan = planned({"interpolated": {"services": {"openclaw-gateway": disabled}}, "image": image})
    assert plan["environment"]["NO_PROXY"] == ""


@pytest.mark.parametrize(
    ("command", "warned"),
    [
        (["tsx", "src/index.ts", "gateway"], False),
        (["nodemon", "dist/index"], False),
        (["gateway", "--bind", "lan"], False),
        (["clawdbot", "gateway"], False),
        (["/init"], False),
        (["/sbin/init"], True),
        (["bun", "dist/index.js"], True),
        (["sh", "-c", "exec /usr/local/bin/bun run dist/index.js"], True),
        (["sh", "-c", "bundle.sh; exec node x"], False),
        (["deno", "run", "x.js"], True),
        (["python3", "-m", "gateway"], True),
    ],
)
def test_command_without_node_causes_a_warning(command, warned):
    project = {"services": {"openclaw-gateway": {"command": command, "network_mode": "host"}}}
    given = {"interpolated": project, "uninterpolated": project, "image": {"Entrypoint": ["docker-entrypoint.sh"]}}
    assert [item["code"] for item in planned(given).get("warnings", [])] == (["no-node"] if warned else [])


def with_proxy(**environment):
    return {"interpolated": {"services": {"openclaw-gateway": {"image": "x", "environment": environment}}}}


def other_proxies(plan):
    return [problem for problem in plan.get("problems", []) if problem["code"] == "other-proxy"]


COMPANY = "http://proxy.corp.example.com:3128"


@pytest.mark.parametrize(
    ("environment", "url", "login"),
    [
        ({"HTTPS_PROXY": COMPANY}, COMPANY, False),
        ({"HTTPS_PROXY": "http://user:hunter2@Proxy.corp.example.com:3128/", "http_proxy": COMPANY}, COMPANY, True),
        ({"OPENCLAW_PROXY_URL": "proxy.corp.example.com:3128"}, COMPANY, False),
        ({"ALL_PROXY": "http://proxy.corp.example.com"}, "http://proxy.corp.example.com:80", False),
        ({"ALL_PROXY": "socks5://proxy.corp.example.com:1080"}, "", False),
        ({"HTTPS_PROXY": COMPANY, "HTTP_PROXY": "http://other.example.com:1"}, "", False),
    ],
)
def test_remedy_for_a_proxy_of_the_network_works(environment, url, login):
    """Expect the plan to name the upstream proxy without credentials, and to accept it after the remedy."""
    (problem,) = other_proxies(planned(with_proxy(**environment)))
    found = re.search(r"openclaw_proxy_upstream_proxy to (\S+)", problem["remedy"])
    assert (found[1] if found else "") == url
    assert ("openclaw_proxy_upstream_proxy_auth" in problem["remedy"]) is login
    assert "hunter2" not in str(problem)
    if not found:
        return
    plan = planned(with_proxy(**environment), upstream_proxy=found[1])
    assert other_proxies(plan) == []
    assert {plan["environment"][name] for name in PROXY_VARIABLES} == {Options.proxy_url}
    assert all(plan["environment"][name] in ("", Options.proxy_url) for name in environment)


def test_proxy_other_than_the_upstream_proxy_is_refused():
    plan = planned(with_proxy(HTTPS_PROXY="http://other.example.com:3128"), upstream_proxy=COMPANY)
    assert len(other_proxies(plan)) == 1


SOCKET = {"volumes": ["/var/run/docker.sock:/var/run/docker.sock"]}
ROOTLESS = {"volumes": ["/run/user/1000/d.sock:/run/docker.sock:ro"]}
REMOTE = {"environment": {"DOCKER_HOST": "tcp://dockerd:2375"}}
LOOPBACK = {"environment": {"DOCKER_HOST": "tcp://127.0.0.1:2375"}}
MOUNTED = {"Mounts": [{"Source": "/run/user/1000/d.sock", "Destination": "/run/docker.sock"}]}
RUNNING = {"Config": {"Env": ["DOCKER_HOST=tcp://dockerd:2375"]}}
OTHERS = {
    "": {},
    "socket proxy": {"dockerd": {"image": "p", "volumes": ["/var/run/docker.sock:/var/run/docker.sock:ro"]}},
    "sidecar": {"dind": {"image": "docker:dind", "container_name": "dockerd", "privileged": True}},
}


@pytest.mark.parametrize(
    ("service", "container", "others", "seen", "wanted", "kind"),
    [
        ({}, {}, "", "", "auto", "nested"),
        ({}, {}, "", "", "host", "host"),
        ({}, {}, "", "other", "auto", "nested"),
        # The entrypoint sets DOCKER_HOST, for example.
        ({}, {}, "", "same", "auto", "host with access"),
        (SOCKET, {}, "", "", "auto", "host with access"),
        (SOCKET, {}, "", "", "nested", "nested with access"),
        # The gateway has the socket, and a daemon of its own, which it uses.
        (SOCKET, {"Mounts": [{"Source": "/run", "Destination": "/run"}]}, "", "other", "auto", "other with access"),
        # The running container does not have the new socket yet.
        (SOCKET, {}, "", "other", "auto", "host with access"),
        ({"volumes": ["docker:/var/lib/docker", "/srv:/srv"]}, {}, "", "", "auto", "nested"),
        ({}, {"Mounts": [{"Source": "/run/docker.sock", "Destination": "/var/run/docker.sock"}]}, "", "", "auto",
            "host with access"),
        (ROOTLESS, {}, "", "", "auto", "daemon-unknown"),
        (ROOTLESS, {}, "", "", "host", "host"),
        (ROOTLESS, MOUNTED, "", "other", "auto", "other"),
        (ROOTLESS, MOUNTED, "", "same", "auto", "host with access"),
        (REMOTE, {}, "", "", "auto", "daemon-unknown"),
        (REMOTE, {}, "socket proxy", "", "auto", "host with access"),
        (REMOTE, {}, "sidecar", "", "auto", "other"),
        (REMOTE, {}, "sidecar", "", "host", "other-daemon"),
        (REMOTE, RUNNING, "", "other", "auto", "other"),
        (REMOTE, RUNNING, "", "same", "auto", "host with access"),
        ({}, RUNNING, "", "", "auto", "daemon-unknown"),
        (LOOPBACK, {}, "", "", "auto", "nested"),
        (LOOPBACK | {"network_mode": "host"}, {}, "", "", "auto", "daemon-unknown"),
        (LOOPBACK | {"network_mode": "host"}, {"Config": {"Env": ["DOCKER_HOST=tcp://[::1]:1"]}}, "", "same", "auto",
            "host with access"),
        ({"environment": {"DOCKER_HOST": "unix:///var/run/docker.sock"}}, {}, "", "", "auto", "nested"),
        ({"environment": {"DOCKER_HOST": "unix:///sockets/d"}, "volumes": ["/srv/s:/sockets"]}, {}, "", "", "auto",
            "daemon-unknown"),
    ],
)  # fmt: skip
def test_daemon_of_the_sandboxes_is_identified(service, container, others, seen, wanted, kind):
    services = {"openclaw-gateway": {"command": ["node", "x"], **service}, **OTHERS[others]}
    project = {"name": "p", "services": services}
    options = Options(service="openclaw-gateway", sandbox_daemon=wanted, daemon_seen=seen)
    plan = make_plan(project, project, None, container, options)
    problems = [one.code for one in plan.problems if one.code.startswith(("daemon", "other-daemon"))]
    warnings = [one.code for one in plan.warnings if one.code != "no-node"]
    if kind.startswith("host"):
        assert plan.siblings and problems == []
    else:
        assert not plan.siblings or kind == "other-daemon"
        assert problems == ([kind] if kind in ("daemon-unknown", "other-daemon") else [])
    assert ("host-docker" in warnings) == kind.endswith("with access")
    assert ("other-daemon" in warnings) == kind.startswith("other ") or kind in ("other", "other-daemon")
