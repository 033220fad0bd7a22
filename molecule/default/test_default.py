"""Test that a real agent turn uses the proxy. Loki and VictoriaLogs must get its complete, redacted record."""

import hashlib
import json
import os
import re

import pytest

from molecule.default.conftest import MARKS, PATHS
from molecule.lab.hosts import (
    KEY,
    ROOT,
    connecting,
    in_gateway,
    in_proxy,
    in_sandbox,
    loki,
    on,
    run,
    sandbox,
    soon,
    victorialogs,
)

# Use a long timeout, because `agent_turn` can take minutes.
pytestmark = pytest.mark.timeout(400)

MARK = MARKS["stream"]
DENIED_SANDBOX = (
    '{service_name="openclaw-proxy"} | event_name="openclaw.egress.denied" | openclaw_egress_class="sandbox"'
)


@pytest.fixture(scope="module")
def turn(calls):
    """Return the agent's reply, and the log entry of the provider's response to this turn."""
    (entry,) = [entry for entry in calls.log if entry["path"] == PATHS["stream"]]
    return calls.replies["stream"], entry


@pytest.fixture(scope="module")
def in_loki(turn):
    found = soon(lambda: loki(f'{{service_name="openclaw-proxy"}} | event_name="openclaw.egress.exchange" |= `{MARK}`'))
    assert found, f"Loki has no record of the agent turn with {MARK}"
    return found


@pytest.fixture(scope="module")
def in_victorialogs(turn, in_loki):
    identity = in_loki[0][0]["openclaw_egress_exchange_id"]
    return soon(
        lambda: victorialogs(f'service.name:="openclaw-proxy" openclaw.egress.exchange.id:="{identity}" _time:1h')
    )


def tokens(usage):
    """Return the numbers of input tokens, including cached ones, and of output tokens, from the provider's usage."""
    cached = usage["cache_creation_input_tokens"] + usage["cache_read_input_tokens"]
    return {"in": usage["input_tokens"] + cached, "out": usage["output_tokens"]}


def test_agent_gets_the_providers_response(turn):
    assert "Hello from the provider stand-in" in turn[0]


def test_loki_has_the_record_with_model_and_tokens(turn, in_loki):
    labels, _ = in_loki[0]
    assert labels["gen_ai_request_model"] == turn[1]["model"] == "claude-opus-5"
    found = {"in": int(labels["gen_ai_usage_input_tokens"]), "out": int(labels["gen_ai_usage_output_tokens"])}
    assert found == tokens(turn[1]["usage"])
    assert labels["openclaw_egress_class"] == "gateway"
    assert labels["openclaw_egress_outcome"] == "complete"


def test_the_record_and_the_usage_have_the_cost_at_the_operators_prices(turn, in_loki):
    used = tokens(turn[1]["usage"])
    cost = float(in_loki[0][0]["openclaw_egress_cost_usd"])
    assert cost == pytest.approx((used["in"] * 4 + used["out"] * 32) / 1e6)
    text = on("vps1", "docker", "exec", "openclaw-proxy", "egress", "usage", "--by", "model", "--json")
    rows = {row["model"]: row for row in map(json.loads, text.splitlines())}
    assert rows["claude-opus-5"]["cost_usd"] >= cost


def test_the_record_is_complete(turn, in_loki):
    whole = json.loads(in_loki[0][1])
    assert whole["request"]["body_sha256"] == turn[1]["request_body_sha256"]
    assert whole["response"]["body_sha256"] == turn[1]["body_sha256"]
    assert MARK in whole["request"]["body"]
    assert "Hello from the provider stand-in" in json.dumps(whole["messages"], ensure_ascii=False)


def test_victorialogs_has_the_same_record(turn, in_loki, in_victorialogs):
    first = next(record for record in in_victorialogs if "gen_ai.request.model" in record)
    assert first["gen_ai.request.model"] == "claude-opus-5"
    found = {"in": int(first["gen_ai.usage.input_tokens"]), "out": int(first["gen_ai.usage.output_tokens"])}
    assert found == tokens(turn[1]["usage"])
    assert first["_msg"] == in_loki[0][1]


def test_record_has_the_agents_trace(in_loki):
    assert len(in_loki[0][0]["trace_id"]) == 32


PLACES = {
    "vps1": ("/home/openclaw/openclaw-egress", "/var/lib/openclaw-egress", "/var/lib/docker/containers"),
    "vps2": ("/var/lib/loki-stand-in.jsonl", "/var/lib/victoria-logs", "/var/log"),
}


def files_with(text: str, host: str) -> list[str]:
    """Return the files on ``host`` that contain ``text``, in the directories of the proxy or of the destinations."""
    # If grep exits with 2, fail only if a directory is missing: a file may have disappeared during the search.
    script = 'grep -rlaFs -e "$0" "$@"; [ $? -le 1 ] || ls -d "$@" >/dev/null'
    return on(host, "sh", "-c", script, text, *PLACES[host]).splitlines()


def test_key_was_sent_and_is_stored_nowhere(turn, in_loki, in_victorialogs):
    assert in_loki[0][0]["openclaw_egress_key"] == hashlib.sha256(KEY.encode()).hexdigest()[:12]
    # Check that the search covers the right files: it must find the text of the turn. VictoriaLogs compresses its
    # files, so send it a query instead.
    assert any(path.endswith(("spool.db", "spool.db-wal")) for path in files_with(MARK, "vps1"))
    assert "/var/lib/loki-stand-in.jsonl" in files_with(MARK, "vps2")
    assert victorialogs(f'"{MARK}" _time:1h')
    part = KEY.removeprefix("sk-ant-")
    assert files_with(part, "vps1") == files_with(part, "vps2") == []
    assert part not in on("vps1", "sh", "-c", "docker logs openclaw-proxy 2>&1")
    assert loki(f'{{service_name="openclaw-proxy"}} |= `{part}`') == []
    assert victorialogs(f'"{part}" _time:1h') == []


def through(port: int, url: str) -> str:
    """Request a URL from the gateway, through the listener on ``port``. Return the status, or the error."""
    script = f"""
import sys, urllib.request, urllib.error, ssl
handler = urllib.request.ProxyHandler({{"http": "http://172.30.0.250:{port}", "https": "http://172.30.0.250:{port}"}})
context = ssl._create_unverified_context()
try:
    opener = urllib.request.build_opener(handler, urllib.request.HTTPSHandler(context=context))
    print(opener.open(sys.argv[1], timeout=20).status)
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
except OSError as error:
    print(error)
"""
    return in_gateway("python3", "-c", script, url)


def test_the_browsers_listener_reaches_an_ordinary_site():
    assert through(8081, "https://www.example.com/").strip() == "200"


def test_sandbox_listener_refuses_an_ordinary_site_with_the_reason():
    assert "403" in through(8082, "https://www.example.com/")
    assert "no rule lets sandbox reach www.example.com" in through(8082, "http://www.example.com/")
    # Select the denial by host name, because Loki also contains denials of this class for requests by verify.yml.
    assert soon(lambda: loki(f'{DENIED_SANDBOX} | server_address="www.example.com"'))


def test_openclaw_starts_the_agents_sandbox_with_current_settings(turn):
    """Expect network `none`, because the class `sandbox` may not reach any destination.

    The operator had set `bridge`.
    """
    form = "{{.HostConfig.NetworkMode}} {{json .Config.Env}}"
    network, _, variables = in_gateway("docker", "inspect", "--format", form, sandbox()).partition(" ")
    assert network == "none"
    assert {"LANG=C.UTF-8", "HTTPS_PROXY=http://172.30.0.250:8082", "ALL_PROXY=http://172.30.0.250:8081"} <= set(
        json.loads(variables)
    )


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("172.30.0.250", 8080),
        ("172.30.0.250", 8081),
        ("172.30.0.250", 8082),
        ("198.51.100.10", 443),
        ("10.0.0.2", 3100),
    ],
)
def test_sandbox_of_a_class_without_destinations_reaches_no_address(turn, host, port):
    assert connecting(in_gateway, host, port) == "connected"
    assert "unreachable" in connecting(in_sandbox, host, port)


def test_the_operators_files_keep_their_bytes():
    clone = "/home/openclaw/openclaw"
    changed = on("vps1", "runuser", "-u", "openclaw", "--", "git", "-C", clone, "status", "--porcelain").splitlines()
    assert set(changed) <= {"?? docker-compose.egress.yml", "?? proxy-config"}
    assert "These comments must survive" in on("vps1", "cat", f"{clone}/docker-compose.override.yml")


# The command by which an operator runs site.yml.
SITE = ("ansible-playbook", "-i", "molecule/lab/inventory", "openclaw.egress.site")


def test_neither_manual_compose_up_nor_second_site_yml_changes_anything():
    """Run `docker compose up`, then site.yml, then `docker compose up` again.

    None of them may recreate a container, and site.yml must change nothing. This test is also the scenario's test of
    idempotence, so that the scenario runs site.yml only twice.
    """

    def containers() -> list[str]:
        names = ("openclaw-gateway", "openclaw-proxy")
        return on("vps1", "docker", "inspect", "--format", "{{.Id}}", *names).split()

    def up(*services: str) -> None:
        command = 'cd "$0" && docker compose up -d "$@" 2>&1'
        on("vps1", "sh", "-c", command, "/home/openclaw/openclaw", *services)

    before = containers()
    up()
    assert containers() == before, "docker compose up -d"
    said = run(*SITE, env=os.environ | {"ANSIBLE_NOCOLOR": "1"})
    tasks = [part.partition("\n")[0] for part in said.split("\nTASK ")[1:] if "\nchanged: [" in part]
    assert tasks == [] and said.count("changed=0 ") == 3, said[-1000:]
    assert containers() == before, "site.yml"
    for services in ([], ["openclaw-gateway"], ["openclaw-proxy"]):
        up(*services)
        assert containers() == before, services


def test_openclaws_proxy_validate_succeeds():
    """Run `openclaw proxy validate`.

    It succeeds if the allowed URL responds and the proxy refuses OpenClaw's canary, a test server on loopback.
    """
    answer = in_gateway(
        "sh", "-c",
        "cd /app && exec node openclaw.mjs proxy validate --proxy-url http://openclaw-proxy:8080"
        " --allowed-url http://www.example.com/ --json",
    )  # fmt: skip
    assert json.loads(answer[answer.index("{") :])["ok"] is True


def test_the_web_page_on_vps1s_loopback_shows_the_turn(turn):
    printed = on("vps1", "docker", "logs", "openclaw-proxy-ui")
    address, token = re.findall(r"egress ui: (http://127\.0\.0\.1:9465)/#token=(\S+)", printed)[-1]
    visit = 'curl -sS -c /tmp/jar -b /tmp/jar "$@"; rm -f /tmp/jar'
    assert "api.anthropic.com" not in on("vps1", "sh", "-c", visit, "sh", f"{address}/")
    page = on("vps1", "sh", "-c", visit, "sh", "--location", "--data", f"token={token}", f"{address}/login")
    assert "api.anthropic.com" in page
    form = ["--data", f"token={token}", "--data", "target=/policy", f"{address}/login"]
    policy = on("vps1", "sh", "-c", visit, "sh", "--location", *form)
    assert "/config/policy.yml" in policy and "not in force" not in policy


def test_the_web_page_reads_the_addon_the_policy_and_the_spool_but_no_key():
    form = "{{range .Mounts}}{{.Destination}} {{.RW}};{{end}}"
    mounts = on("vps1", "docker", "inspect", "--format", form, "openclaw-proxy-ui").strip(";\n").split(";")
    assert sorted(mounts) == ["/addons false", "/config false", "/spool false", "/spool/signing-key.pem false"]
    assert on("vps1", "docker", "exec", "openclaw-proxy-ui", "cat", "/spool/signing-key.pem") == ""


def test_the_proxys_memory_is_within_its_limit():
    files = "/sys/fs/cgroup/memory.peak /sys/fs/cgroup/memory/memory.max_usage_in_bytes"
    peak = int(in_proxy("sh", "-c", f"cat {files} 2>/dev/null || true").strip())
    assert 0 < peak < 512 * 1024 * 1024


def guides_commands():
    """Return the commands that `https-forward-proxy.md` marks with `<!-- run on VPS-1 -->`."""
    guide = (ROOT / "playbooks" / "extras" / "https-forward-proxy.md").read_text()
    blocks = re.findall(r"<!-- run on VPS-1 -->\n```sh\n(.*?)```", guide, re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize("command", guides_commands())
def test_the_guides_commands_work_on_vps1(turn, command):
    # Include standard error, because some commands print logs there.
    assert on("vps1", "bash", "-c", f"{command} 2>&1").strip()
