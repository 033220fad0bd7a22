"""The lab's hosts, as the scenarios' tests ask them."""

from __future__ import annotations

import difflib
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
NAME = "openclaw-egress-lab"
KEY = "sk-ant-api03-lab-key-that-must-not-be-kept"


def run(*words: str, **options: Any) -> str:
    """What a command prints; an error with what it said where it fails."""
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT, **options)
    assert done.returncode == 0, f"{' '.join(words)[:300]} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def on(host: str, *words: str) -> str:
    """Run a command on a host of the lab."""
    return run("docker", "exec", f"{NAME}-{host}", *words)


def in_gateway(*words: str) -> str:
    """Run a command in OpenClaw's gateway, as its user."""
    return on("vps1", "docker", "exec", "--user", "node", "openclaw-gateway", *words)


# The state of the agent that `lab turn` runs beside the gateway; its sandboxes are in there.
AGENT = ("env", "OPENCLAW_STATE_DIR=/tmp/agent", "OPENCLAW_CONFIG_PATH=/home/node/.openclaw/openclaw.json")


def openclaw(*words: str) -> str:
    """Run OpenClaw's own command, on that agent's state."""
    return in_gateway(*AGENT, "node", "dist/index.js", *words)


def sandbox() -> str:
    """The name of the one code sandbox that OpenClaw has started."""
    (name,) = in_gateway("docker", "ps", "--filter", "name=openclaw-sbx-", "--format", "{{.Names}}").split()
    return name


def in_sandbox(*words: str) -> str:
    """Run a command in that sandbox, whatever it ends with: what it printed, and complained of."""
    return in_gateway("docker", "exec", sandbox(), "sh", "-c", '"$@" 2>&1; true', "sh", *words)


def sandbox_settings() -> dict[str, Any]:
    """What OpenClaw has configured for its sandboxes, as `agents.defaults.sandbox`."""
    answer = openclaw("config", "get", "agents.defaults.sandbox", "--json")
    return dict(json.loads(answer[answer.index("{") :]))


def in_browser(*words: str) -> str:
    """Run a command in a container as OpenClaw makes one for a browser, whatever it ends with: all that it printed."""
    settings = sandbox_settings()
    # OpenClaw makes its own network when it is first needed, and no other.
    network = settings.get("browser", {}).get("network", "openclaw-sandbox-browser")
    in_gateway("sh", "-c", 'docker network inspect "$0" || docker network create "$0"', network)
    variables = [word for name, value in settings["docker"]["env"].items() for word in ("--env", f"{name}={value}")]
    return in_gateway(
        *("docker", "run", "--rm", "--init", "--network", network, "--read-only", "--tmpfs", "/tmp", "--cap-drop=ALL"),
        *("--security-opt", "no-new-privileges", *variables, "--entrypoint", "sh"),
        *("openclaw-sandbox-browser:bookworm-slim", "-c", '"$@" 2>&1; true', "sh", *words),
    )


def page(url: str) -> str:
    """The HTML that a real Chromium made of a page, in a browser's container; `net::ERR_…` in it where nothing came."""
    return in_browser("timeout", "60", "sandbox-browser", "--dump-dom", url)


def connecting(ask: Callable[..., str], host: str, port: int) -> str:
    """`connected`, or why not, of a connection past every proxy."""
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


def agent_turn(text: str) -> str:
    """One turn of the real OpenClaw, with a model call through the proxy; returns what the agent said."""
    return run("molecule/lab/lab", "turn", text, timeout=240)


def whole_lines(text: str) -> list[str]:
    """The lines of a log: ended by a line feed alone, unlike `str.splitlines`; one still being written is none."""
    return text.split("\n")[:-1]


def json_lines(host: str, file: str) -> list[dict[str, Any]]:
    """The entries of a log, oldest first."""
    return [json.loads(line) for line in whole_lines(on(host, "cat", file))]


def provider_log() -> list[dict[str, Any]]:
    """What the providers' stand-in answered."""
    return json_lines("internet", "/var/log/provider.jsonl")


def ways_out() -> list[dict[str, Any]]:
    """Packets that reached the address that no policy allows, as `internet/canary.py` describes them."""
    return json_lines("internet", "/var/log/canary.jsonl")


def names_asked() -> set[str]:
    """The names that the lab's DNS was asked for, in lower case."""
    log = on("internet", "cat", "/var/log/dnsmasq.log")
    return {line.split(" query[")[1].split()[1].lower() for line in log.splitlines() if " query[" in line}


def telemetry() -> list[dict[str, Any]]:
    """The gateway's traces and metrics that reached VPS-2, as `vps2/telemetry.py` notes them."""
    return json_lines("vps2", "/var/log/telemetry.jsonl")


def loki(query: str) -> list[tuple[dict[str, str], str]]:
    """(labels and metadata, line) of what the Loki stand-in finds within the last hour."""
    url = "http://10.0.0.2:3100/loki/api/v1/query_range"
    text = on(
        "vps2", "curl", "-sS", "--get", url, "--data-urlencode", f"query={query}", "--data-urlencode", "limit=1000",
        "--data-urlencode", f"start={int((time.time() - 3600) * 1e9)}",
        "--data-urlencode", f"end={int((time.time() + 60) * 1e9)}",
    )  # fmt: skip
    return [(one["stream"], line) for one in json.loads(text)["data"]["result"] for _, line in one["values"]]


def victorialogs(query: str) -> list[dict[str, str]]:
    """What VictoriaLogs finds, a dict for each record."""
    url = "http://10.0.0.2:9428/select/logsql/query"
    text = on("vps2", "curl", "-sS", url, "--data-urlencode", f"query={query}", "--data-urlencode", "limit=1000")
    return [json.loads(line) for line in whole_lines(text)]


def soon[T](find: Callable[[], T], seconds: float = 30) -> T:
    """What ``find`` gives, asked again until it gives something."""
    end = time.monotonic() + seconds
    while not (found := find()) and time.monotonic() < end:
        time.sleep(0.5)
    return found


def changes_since(scenario: str, *hosts: str) -> str:
    """What differs between the hosts now and when the scenario began, as a diff; empty where nothing does."""
    before = (ROOT / "build" / "lab" / f"{scenario}.before").read_text().splitlines()
    after = run("molecule/lab/lab", "snapshot", *hosts).splitlines()
    assert len(before) > 1000, "the listing of before is not one"
    return "\n".join(difflib.unified_diff(before, after, "before", "after", lineterm="", n=0))
