"""Helpers for the tests of the scenarios: they run commands on the lab's hosts, and read the lab's logs."""

from __future__ import annotations

import difflib
import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.docker_exec import completed

ROOT = Path(__file__).resolve().parents[2]
NAME = "openclaw-egress-lab"
KEY = "sk-ant-api03-lab-key-that-must-not-be-kept"
OPENAI_KEY = "sk-proj-lab-key-that-must-not-be-kept"


def run(*words: str, **options: Any) -> str:
    """Run a command. Return its output. If the command fails, raise an error that contains the output."""
    done = completed(words, cwd=ROOT, **options)
    assert done.returncode == 0, f"{' '.join(words)[:300]} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def on(host: str, *words: str) -> str:
    """Run a command on a host of the lab."""
    return run("docker", "exec", f"{NAME}-{host}", *words)


def in_gateway(*words: str) -> str:
    """Run a command in the container of OpenClaw's gateway, as the user `node`."""
    return on("vps1", "docker", "exec", "--user", "node", "openclaw-gateway", *words)


# Environment of the agent that `lab turn` runs beside the gateway. The agent has its own state, including sandboxes.
AGENT = ("env", "OPENCLAW_STATE_DIR=/tmp/agent", "OPENCLAW_CONFIG_PATH=/home/node/.openclaw/openclaw.json")


def openclaw(*words: str) -> str:
    """Run an `openclaw` command with the state of the agent that `lab turn` runs."""
    return in_gateway(*AGENT, "node", "dist/index.js", *words)


def sandbox() -> str:
    """Return the name of the code sandbox that OpenClaw started. Fail unless there is exactly one."""
    (name,) = in_gateway("docker", "ps", "--filter", "name=openclaw-sbx-", "--format", "{{.Names}}").split()
    return name


def in_sandbox(*words: str) -> str:
    """Run a command in the code sandbox. Return its standard output and standard error, even if the command fails."""
    return in_gateway("docker", "exec", sandbox(), "sh", "-c", '"$@" 2>&1; true', "sh", *words)


@functools.cache
def sandbox_settings() -> dict[str, Any]:
    """Return OpenClaw's configuration of its sandboxes, `agents.defaults.sandbox`.

    Read it only once per test run: no test changes it, and each start of the `openclaw` command takes seconds.
    """
    answer = openclaw("config", "get", "agents.defaults.sandbox", "--json")
    return dict(json.loads(answer[answer.index("{") :]))


def in_browser(*words: str) -> str:
    """Run a command in a new container that is configured like OpenClaw's browser containers.

    Return its standard output and standard error, even if the command fails.
    """
    settings = sandbox_settings()
    # Create the network if needed. OpenClaw creates its default browser network only when it first uses it.
    network = settings.get("browser", {}).get("network", "openclaw-sandbox-browser")
    in_gateway("sh", "-c", 'docker network inspect "$0" || docker network create "$0"', network)
    variables = [word for name, value in settings["docker"]["env"].items() for word in ("--env", f"{name}={value}")]
    return in_gateway(
        *("docker", "run", "--rm", "--init", "--network", network, "--read-only", "--tmpfs", "/tmp", "--cap-drop=ALL"),
        *("--security-opt", "no-new-privileges", *variables, "--entrypoint", "sh"),
        *("openclaw-sandbox-browser:bookworm-slim", "-c", '"$@" 2>&1; true', "sh", *words),
    )


def page(url: str) -> str:
    """Load a page with the Chromium of a browser sandbox container.

    Return its HTML, or an error message with `net::ERR_…`.
    """
    return in_browser("timeout", "60", "sandbox-browser", "--dump-dom", url)


def connecting(ask: Callable[..., str], host: str, port: int) -> str:
    """Connect directly to an address, from the container in which ``ask`` runs commands.

    Return `connected`, or the error.
    """
    script = f"""
import socket
try:
    socket.create_connection(({host!r}, {port}), 3)
    print("connected")
except OSError as error:
    print(error)
"""
    return ask("python3", "-c", script).strip()


def in_proxy(*words: str) -> str:
    """Run a command in the proxy's container."""
    return on("vps1", "docker", "exec", "openclaw-proxy", *words)


def agent_turn(text: str, model: str = "anthropic/claude-opus-5") -> str:
    """Run one turn of the real OpenClaw, with a model call through the proxy. Return the agent's reply."""
    return run("molecule/lab/lab", "turn", text, model, timeout=240)


@functools.cache
def recreate_sandbox() -> None:
    """Remove the sandbox, and make OpenClaw create a new one. Do this only once per test run, even if called twice."""
    openclaw("sandbox", "recreate", "--all", "--force")
    agent_turn("hello")


def whole_lines(text: str) -> list[str]:
    """Return the complete lines of a log. Unlike `str.splitlines`, split only at line feeds."""
    return text.split("\n")[:-1]


def json_lines(host: str, file: str) -> list[dict[str, Any]]:
    """Return the entries of a log, oldest first."""
    return [json.loads(line) for line in whole_lines(on(host, "cat", file))]


def provider_log() -> list[dict[str, Any]]:
    """Return the log of the fake providers: an entry for each response."""
    return json_lines("internet", "/var/log/provider.jsonl")


def ways_out() -> list[dict[str, Any]]:
    """Return the log entries of `internet/canary.py`: packets that reached an address that no policy allows."""
    return json_lines("internet", "/var/log/canary.jsonl")


def names_asked() -> set[str]:
    """Return the names in the queries to the lab's DNS, in lower case."""
    log = on("internet", "cat", "/var/log/dnsmasq.log")
    return {line.split(" query[")[1].split()[1].lower() for line in log.splitlines() if " query[" in line}


def telemetry() -> list[dict[str, Any]]:
    """Return the gateway's traces and metrics that reached VPS-2, as `vps2/telemetry.py` logs them."""
    return json_lines("vps2", "/var/log/telemetry.jsonl")


def loki(query: str) -> list[tuple[dict[str, str], str]]:
    """Query the Loki fake for the last hour. For each record, return its labels and metadata, and its line."""
    url = "http://10.0.0.2:3100/loki/api/v1/query_range"
    text = on(
        "vps2", "curl", "-sS", "--get", url, "--data-urlencode", f"query={query}", "--data-urlencode", "limit=1000",
        "--data-urlencode", f"start={int((time.time() - 3600) * 1e9)}",
        "--data-urlencode", f"end={int((time.time() + 60) * 1e9)}",
    )  # fmt: skip
    return [(one["stream"], line) for one in json.loads(text)["data"]["result"] for _, line in one["values"]]


def victorialogs(query: str) -> list[dict[str, str]]:
    """Query VictoriaLogs. Return each record as a dict."""
    url = "http://10.0.0.2:9428/select/logsql/query"
    text = on("vps2", "curl", "-sS", url, "--data-urlencode", f"query={query}", "--data-urlencode", "limit=1000")
    return [json.loads(line) for line in whole_lines(text)]


def soon[T](find: Callable[[], T], seconds: float = 30) -> T:
    """Call ``find`` until it returns a true value or the timeout passes. Return its last value."""
    end = time.monotonic() + seconds
    while not (found := find()) and time.monotonic() < end:
        time.sleep(0.5)
    return found


def changes_since(scenario: str, *hosts: str) -> str:
    """Return a diff of the hosts' state between the scenario's start and now, or an empty text if nothing differs."""
    before = (ROOT / "build" / "lab" / f"{scenario}.before").read_text().splitlines()
    after = run("molecule/lab/lab", "snapshot", *hosts).splitlines()
    assert len(before) > 1000, "the saved listing of the hosts is incomplete"
    return "\n".join(difflib.unified_diff(before, after, "before", "after", lineterm="", n=0))
