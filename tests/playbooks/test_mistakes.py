"""Tests of operator errors: a run stops before any change, with one message that contains the error and a remedy."""

import getpass
import json
import os
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.integration.ansible.conftest import BIN
from tests.support.docker import Docker


@pytest.fixture
def deploy(run, tmp_path):
    """Return a function that runs site.yml on the test machine, and returns its output.

    The run must fail, because the machine meets none of the requirements.
    """

    def call(inventory: dict, *more: str, **variables: str) -> str:
        file = tmp_path / "hosts.json"
        local = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": "auto_silent"}
        file.write_text(json.dumps({"all": {"vars": local, "children": inventory}}))
        done = run("ansible-playbook", "-i", str(file), "site.yml", *more, **variables)
        assert done.returncode != 0, done.stdout
        assert "changed=0" in done.stdout and "Traceback" not in done.stdout + done.stderr
        return " ".join((done.stdout + done.stderr).split())

    return call


GATEWAY = {"openclaw_gateways": {"hosts": {"one": {"loki_otlp_ready_timeout": 5}}}}
NO_LOKI = {"openclaw_proxy_otlp_logs_endpoint": ""}


def test_inventory_without_a_gateway_is_refused(deploy):
    said = deploy({"openclaw_loki": {"hosts": {"two": {}}}})
    assert "Nothing was changed" in said and "openclaw_gateways" in said


def test_inventory_without_a_loki_is_refused(deploy):
    said = deploy(GATEWAY)
    assert "Nothing was changed" in said and "openclaw_loki" in said and "openclaw_proxy_otlp_logs_endpoint" in said


def test_loki_host_missing_from_the_inventory_is_refused(deploy):
    hosts = {"one": {"openclaw_proxy_loki_host": "three"}}
    said = deploy({"openclaw_gateways": {"hosts": hosts}, "openclaw_loki": {"hosts": {"two": {}}}})
    assert "openclaw_proxy_loki_host: three" in said


INSTANCE = {"name": "a", "subnet": "10.9.0.0/24"}
TYPES = {
    "size": ({"openclaw_proxy_max_body_size": "a lot"}, "openclaw_proxy_max_body_size"),
    "choice": ({"openclaw_proxy_spool_full": "explode"}, "drop_oldest"),
    "log": ({"openclaw_proxy_log_max_file": "several"}, "openclaw_proxy_log_max_file"),
    "option": ({"openclaw_gateway_instances": [INSTANCE | {"own_option": "x"}]}, "own_option"),
    "seconds": ({"openclaw_gateway_instances": [INSTANCE | {"start_timeout": "soon"}]}, "start_timeout"),
    "subnet": ({"openclaw_gateway_instances": [{"name": "a"}]}, "subnet"),
}
MEANINGS = {
    "memory": ({"openclaw_proxy_memory": "12M"}, "openclaw_proxy_memory"),
    "policy": ({"openclaw_proxy_policy": {"version": 1}}, "openclaw_proxy_policy"),
    "file": ({"openclaw_proxy_policy_file": "/no/such/policy.yml"}, "/no/such/policy.yml"),
    "names": ({"openclaw_gateway_instances": [INSTANCE, INSTANCE]}, "two gateways have the name a"),
    "class": ({"openclaw_gateway_instances": [INSTANCE]}, "the policy has no class gateway-a. Write in"),
}


@pytest.mark.parametrize("mistakes", [TYPES, MEANINGS], ids=["types", "meanings"])
def test_invalid_values_are_reported_for_each_host(deploy, mistakes):
    """Expect a report of every invalid value, with its host."""
    hosts = {name: variables for name, (variables, _) in mistakes.items()}
    said = deploy({"openclaw_gateways": {"hosts": hosts}, "openclaw_loki": {"hosts": {"two": {}}}})
    assert "PLAY [Prepare Loki on VPS-2]" not in said, "the mistakes were reported only after tasks ran on VPS-2"
    for name, (_, named) in mistakes.items():
        result = " ".join(re.findall(rf"(?:failed|fatal): \[{name}\].*?(?=\[ERROR\]|PLAY RECAP)", said))
        assert "Nothing was changed." in result and named in result, f"{name}: {result or said}"


def test_mistyped_variable_is_reported(deploy):
    hosts = {"one": {"openclaw_proxy_max_body_sise": 5}}
    said = deploy({"openclaw_gateways": {"hosts": hosts}, "openclaw_loki": {"hosts": {"two": {}}}})
    assert "Nothing was changed. No role has the variables openclaw_proxy_max_body_sise" in said
    assert "PLAY [Prepare Loki on VPS-2]" not in said


def test_all_missing_requirements_of_a_host_are_reported(deploy):
    hosts = {
        "one": NO_LOKI
        | {"openclaw_egress_compose_dir": "/no/such/clone", "openclaw_egress_owner": "nobody-of-that-name"}
    }
    said = deploy({"openclaw_gateways": {"hosts": hosts}})
    assert "Nothing was changed." in said
    assert "/no/such/clone is not a directory" in said and "no user nobody-of-that-name" in said


@pytest.fixture
def html() -> Iterator[int]:
    """Yield the port of a server that responds to every request with an HTML page."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>Welcome to nginx!</html>")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def test_html_response_instead_of_lokis_is_reported(deploy, html, tmp_path):
    two = {"loki_otlp_address": "127.0.0.1", "loki_otlp_port": html, "loki_otlp_state_dir": f"{tmp_path}/state"}
    said = deploy(GATEWAY | {"openclaw_loki": {"hosts": {"two": two}}})
    assert f"Nothing was changed. http://127.0.0.1:{html}/config does not respond with Loki's configuration" in said
    assert "Check which program listens there" in said
    assert not (tmp_path / "state").exists()


def with_gateway(**settings: object) -> dict:
    """Return a compose project with a gateway service that has these settings."""
    return {"services": {"openclaw-gateway": {"command": ["node", "dist/index.js", "gateway"]} | settings}}


@pytest.fixture
def stopped(deploy, tmp_path):
    """Return a function that runs site.yml with a compose project and a build script. The run must fail.

    The function checks that the run changed nothing, and returns its output.
    """

    def call(compose: dict, script: str = "docker build .", variables: dict | None = None, **docker: object) -> str:
        clone = tmp_path / "clone"
        clone.mkdir()
        (clone / "docker-compose.yml").write_text("services: {}\n")
        (tmp_path / "build-openclaw.sh").write_text(f"#!/bin/bash\n{script}\n")
        Docker(tmp_path / "bin", networks={"openclaw-gateway-net": "172.30.0.0/24"}, compose=compose, **docker)
        one = NO_LOKI | {
            "openclaw_egress_home": f"{tmp_path}/home",
            "openclaw_egress_state_dir": f"{tmp_path}/state",
            "openclaw_egress_compose_dir": str(clone),
            "openclaw_egress_owner": getpass.getuser(),
            "openclaw_gateway_build_script": f"{tmp_path}/build-openclaw.sh",
        }
        path = os.pathsep.join([str(tmp_path / "bin"), str(BIN), os.environ["PATH"]])
        said = deploy({"openclaw_gateways": {"hosts": {"one": one | (variables or {})}}}, PATH=path)
        assert (tmp_path / "build-openclaw.sh").read_text() == f"#!/bin/bash\n{script}\n"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "build-openclaw.sh", "clone", "hosts.json"]
        assert [path.name for path in clone.iterdir()] == ["docker-compose.yml"]
        return said

    return call


@pytest.mark.parametrize(
    ("compose", "script", "named"),
    [
        (
            {"message": "yaml: line 3: mapping values"},
            "docker build .",
            "docker-compose.yml: yaml: line 3: mapping values",
        ),
        ({"services": {"web": {}}}, "docker build .", "no service openclaw-gateway. It has: web"),
        (
            with_gateway(command=["env", "-i", "node", "x"]),
            "docker build .",
            "starts the gateway with `env -i`, which removes the proxy variables",
        ),
        (with_gateway(environment={"HTTPS_PROXY": "x"}), "docker build .", "has a proxy already (HTTPS_PROXY"),
        (
            with_gateway(environment={"OPENCLAW_PROXY_URL": "http://squid:3128"}),
            "docker build .",
            "(OPENCLAW_PROXY_URL in",
        ),
        (with_gateway(), "podman build .", "line 2: podman builds the image; the patch supports docker only"),
        (with_gateway(), "echo nothing", "anchor `docker build` not found"),
    ],
    ids=[
        "does not parse",
        "no gateway",
        "a cleared environment",
        "another proxy",
        "OpenClaw's own proxy",
        "another builder",
        "no anchor",
    ],
)
def test_invalid_files_of_the_operator_are_reported(stopped, compose, script, named):
    assert named in stopped(compose, script, {"openclaw_gateway_bootstrap": "image"})


def test_obstacles_to_the_level_network_are_reported(stopped):
    """Expect one report that contains every obstacle to enforcement level `network`."""
    said = stopped(
        with_gateway(user="node", network_mode="host", environment={"DOCKER_HOST": "tcp://127.0.0.1:2375"}),
        variables={"openclaw_gateway_enforcement": "network", "openclaw_gateway_sandbox_daemon": "host"},
        compose_version="2.20.3-1",
        lacks="iptables-restore",
        macvlan="operation not supported",
    )
    assert "Nothing was changed." in said
    for named in (
        "starts as a user other than root",
        "has network_mode host",
        "reaches Docker over the network",
        "Docker Compose has version 2.20.3",
        "lacks a program for the firewall rules: no iptables-restore",
        "openclaw-egress here (Error response from daemon: operation not supported)",
    ):
        assert named in said


# Return container labels as Compose 2.26.1 writes them for `-f docker-compose.yml -f extra.yml -p home`.
def labels(clone, *files: str, project: str = "clone") -> dict:
    return {
        "com.docker.compose.project": project,
        "com.docker.compose.project.config_files": ",".join(f"{clone}/{name}" for name in files),
        "com.docker.compose.project.working_dir": str(clone),
        "com.docker.compose.service": "openclaw-gateway",
    }


def test_gateway_is_not_recreated_from_fewer_compose_files(stopped, tmp_path):
    clone = tmp_path / "clone"
    said = stopped(
        with_gateway() | {"name": "clone"},
        containers={"openclaw-gateway": "running"},
        labels={"openclaw-gateway": labels(clone, "docker-compose.yml", "extra.yml", project="home")},
    )
    assert f"the container was started with {clone}/docker-compose.yml, {clone}/extra.yml" in said
    assert f"site.yml would use {clone}/docker-compose.yml." in said
    assert f"set COMPOSE_FILE={clone}/docker-compose.yml:{clone}/extra.yml in {clone}/.env" in said
    assert f"Set COMPOSE_PROJECT_NAME=home in {clone}/.env" in said


PREFLIGHT = [
    {
        "hosts": "localhost",
        "gather_facts": False,
        "tasks": [
            {
                "ansible.builtin.include_role": {
                    "name": "openclaw.egress.openclaw_gateway",
                    "tasks_from": "preflight",
                    "public": True,
                }
            },
            {
                "ansible.builtin.debug": {
                    "msg": "files={{ __openclaw_gateway_own_files | map('basename') | join(',') }}"
                    " container={{ __openclaw_gateway_container }} image={{ __openclaw_gateway_image }}"
                    " by={{ __openclaw_gateway_plan.loaded_by }} bootstrap={{ __openclaw_gateway_plan.bootstrap }}"
                    " networks={{ __openclaw_gateway_plan.networks }}"
                    " no_proxy={{ __openclaw_gateway_plan.environment.NO_PROXY }}"
                }
            },
        ],
    }
]


@pytest.fixture
def preflight(run, tmp_path):
    """Return a function that runs the role's preflight for a fake clone and `docker`, and returns its output."""
    clone = tmp_path / "clone"
    clone.mkdir()
    (tmp_path / "play.yml").write_text(json.dumps(PREFLIGHT))
    variables = {
        "openclaw_egress_compose_dir": str(clone),
        "openclaw_egress_home": f"{tmp_path}/home",
        "openclaw_egress_owner": getpass.getuser(),
        "openclaw_gateway_build_script": f"{tmp_path}/build-openclaw.sh",
    }

    def call(*words: str, files: str = "docker-compose.yml", script: str = "", seed: int = 0, **docker: object) -> str:
        for name in [*files.split(","), "docker-compose.egress.yml"]:
            (clone / name).write_text("services: {}\n")
        (clone / ".env").write_text(f"COMPOSE_FILE={files.replace(',', ':')}:docker-compose.egress.yml\n")
        if script:
            (tmp_path / "build-openclaw.sh").write_text(f"#!/bin/bash\n{script}\n")
        Docker(tmp_path / "bin", **docker)
        path = os.pathsep.join([str(tmp_path / "bin"), str(BIN), os.environ["PATH"]])
        done = run(
            "ansible-playbook", "-i", "localhost,", "-c", "local", "-e", json.dumps(variables), *words,
            f"{tmp_path}/play.yml", PATH=path, PYTHONHASHSEED=str(seed),
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    call.clone = clone
    return call


@pytest.mark.timeout(1200)
def test_compose_files_keep_their_order_for_any_hash_seed(preflight):
    """Expect the compose files in the order of COMPOSE_FILE, for each hash seed.

    The running container was started from these files, and its HTTP_PROXY is empty. None of the files has a name that
    Compose would find without COMPOSE_FILE.
    """
    names = [f"{name}.yml" for name in ("gateway", "b", "a", "d", "c", "e")]
    for seed in range(8):
        said = preflight(
            files=",".join(names),
            script="docker build .",
            seed=seed,
            compose=with_gateway(environment={"HTTP_PROXY": "${HTTP_PROXY:-}"}) | {"name": "clone"},
            filled=with_gateway(environment={"HTTP_PROXY": ""}),
            containers={"openclaw-gateway": "running"},
            labels={"openclaw-gateway": labels(preflight.clone, *names, "docker-compose.egress.yml")},
        )
        assert f"files={','.join(names)} container=openclaw-gateway" in said
        assert "auto is image here, because" in said and "bootstrap=/app/proxy-bootstrap.cjs" in said


def test_another_proxy_in_openclaw_stops_site_yml_but_not_verify_yml(preflight):
    """verify.yml must reach its check of the same settings, which reports the other proxy with its remedy."""
    docker = {
        "compose": with_gateway(image="openclaw:local", container_name="openclaw-gateway") | {"name": "clone"},
        "images": {"openclaw:local": "sha256:1"},
        "containers": {"openclaw-gateway": "running"},
        "openclaw": {"proxy": {"proxyUrl": "http://squid:3128"}},
    }
    with pytest.raises(AssertionError, match="has its own proxy"):
        preflight(**docker)
    preflight("-e", json.dumps({"__openclaw_gateway_only_verify": True}), **docker)


def test_a_registry_image_needs_no_build_script(preflight):
    """Expect the role to mount the bootstrap and to report the reason if it has no build script that it can patch."""
    compose = with_gateway(image="ghcr.io/openclaw/openclaw:latest") | {"name": "clone"}
    images = {"ghcr.io/openclaw/openclaw:latest": "sha256:1"}
    said = preflight(compose=compose, images=images)
    assert "auto is mount here, because" in said and "build-openclaw.sh does not exist." in said
    assert (
        "image=ghcr.io/openclaw/openclaw:latest by=command bootstrap=/etc/openclaw-egress/proxy-bootstrap.cjs" in said
    )
    said = preflight(compose=compose, images=images, script="podman build .")
    assert "auto is mount here, because" in said and "cannot be patched: " in said


def test_emptied_list_of_gateways_is_refused_until_they_are_rolled_back(preflight, tmp_path):
    """Expect the names of the deployed gateways. The remedy, rollback.yml, deletes their manifests."""
    state = tmp_path / "state"
    state.mkdir()
    (state / "manifest-a.json").write_text("{}")
    compose = with_gateway(image="openclaw:local", container_name="openclaw-gateway") | {"name": "clone"}
    docker = {
        "compose": compose,
        "images": {"openclaw:local": "sha256:1"},
        "containers": {"openclaw-gateway": "running"},
    }
    words = ("-e", json.dumps({"openclaw_egress_state_dir": str(state)}))
    with pytest.raises(AssertionError, match=r"gateways of an earlier list are deployed\s+\(a\)\. Run rollback\.yml"):
        preflight(*words, **docker)
    (state / "manifest-a.json").unlink()
    preflight(*words, **docker)


def test_a_profile_and_a_clone_mounted_over_the_image_are_supported(preflight):
    """Use a service in an inactive profile, with a volume at /app that hides the image's files."""
    clone = {"type": "bind", "source": "/srv/openclaw", "target": "/app"}
    compose = with_gateway(image="openclaw:local", profiles=["claw"], volumes=[clone]) | {"name": "clone"}
    said = preflight(compose=compose, images={"openclaw:local": "sha256:1"}, script="docker build -t openclaw:local .")
    assert "auto is mount here, because" in said and "a volume at /app would hide the bootstrap" in said
    assert "by=command bootstrap=/etc/openclaw-egress/proxy-bootstrap.cjs" in said


def test_a_container_without_a_name_is_found_by_its_labels(preflight):
    """Use a gateway without container_name and networks. The role must also connect it to the proxy's network."""
    compose = with_gateway(image="openclaw:local") | {"name": "clone"}
    script = "docker build -t openclaw:local ."
    said = preflight(compose=compose, script=script)
    assert "container=clone-openclaw-gateway-1" in said, "the name that Compose would give it"
    assert "networks={'default': {}, 'openclaw-gateway-net': {}}" in said
    found = labels(preflight.clone, "docker-compose.yml")
    elsewhere = found | {"com.docker.compose.project.working_dir": "/srv/other"}
    said = preflight(
        compose=compose,
        script=script,
        containers={"clone-openclaw-gateway-7": "running"},
        labels={"other-openclaw-gateway-1": elsewhere, "clone-openclaw-gateway-7": found},
    )
    assert "container=clone-openclaw-gateway-7" in said


def test_variables_may_be_strings(preflight):
    """Pass numbers, booleans and lists with `-e`, which makes them strings."""
    words = [
        f"-e{value}"
        for value in (
            "openclaw_gateway_start_timeout=600",
            "openclaw_gateway_sandboxes=false",
            "openclaw_gateway_no_proxy=10.0.0.0/8,localhost",
            "openclaw_gateway_direct_hosts=10.0.0.2",
            "openclaw_gateway_cli='node openclaw.mjs'",
        )
    ]
    said = preflight(*words, compose=with_gateway(image="x"), images={"x:latest": "1", "x": "1"})
    assert "no_proxy=10.0.0.2,10.0.0.0/8,localhost" in said


def test_the_operators_ca_certificates_must_be_readable(stopped, tmp_path):
    """Expect the role to stop before any change if the CA file in the gateway's NODE_EXTRA_CA_CERTS is missing."""
    missing = with_gateway(
        environment={"NODE_EXTRA_CA_CERTS": "/certs/corp.pem"}, volumes=[f"{tmp_path}/certs:/certs:ro"]
    )
    said = stopped(missing)
    assert "NODE_EXTRA_CA_CERTS of openclaw-gateway is /certs/corp.pem" in said
    assert f"{tmp_path}/certs/corp.pem" in said


def test_a_proxy_of_openclaws_own_configuration_is_refused(stopped):
    said = stopped(
        with_gateway(),
        containers={"openclaw-gateway": "running"},
        openclaw={
            "proxy": {"proxyUrl": "http://user:hunter2@squid:3128"},
            "channels": {"telegram": {"proxy": "http://squid:3128", "botToken": "hunter2"}, "discord": {}},
        },
    )
    assert "(proxy.proxyUrl, channels.telegram.proxy in openclaw.json)" in said
    assert "config unset proxy.proxyUrl" in said
    assert "set openclaw_proxy_upstream_proxy to http://squid:3128:" in said
    assert "hunter2" not in said


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        (
            {"openclaw_proxy_upstream_proxy": "socks5://squid:1080"},
            "socks5://squid:1080 is not the URL of an HTTP proxy",
        ),
        ({"openclaw_proxy_upstream_proxy": "http://user:hunter2@squid:3128"}, "http://squid:3128 is not the URL"),
        ({"openclaw_proxy_upstream_proxy": "http://squid"}, "http://squid is not the URL"),
        (
            {"openclaw_proxy_upstream_proxy_auth": "user:hunter2"},
            "openclaw_proxy_upstream_proxy_auth must be USER:PASSWORD",
        ),
    ],
)
def test_invalid_upstream_proxy_is_refused_without_its_password(stopped, variables, named):
    said = stopped(with_gateway(), variables=variables)
    assert named in said and "hunter2" not in said


def test_proxy_of_the_network_is_accepted_as_upstream_proxy(preflight):
    said = preflight(
        "--extra-vars",
        "openclaw_proxy_upstream_proxy=http://squid:3128",
        compose=with_gateway(image="x", environment={"HTTPS_PROXY": "http://squid:3128/"}),
        images={"x:latest": "1", "x": "1"},
    )
    assert "files=docker-compose.yml" in said
