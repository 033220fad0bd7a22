"""Tests of the transports of OpenClaw's calls to LLM providers: plain response, stream of events, and WebSocket.

Each call must be recorded completely, and no connection of the gateway may bypass the proxy.
"""

import hashlib
import json

import pytest

from molecule.default.conftest import MARKS, PATHS
from molecule.lab.hosts import KEY, OPENAI_KEY, loki, soon

# Use a long timeout, because an agent turn can take minutes.
pytestmark = pytest.mark.timeout(400)

PROXY, TELEMETRY = "172.30.0.250", "10.0.0.2"
LOOPBACK = ("127.", "0.0.0.0", "::")


def test_the_gateway_connects_to_the_proxy_and_to_nothing_else(calls):
    """Ignore loopback, and the telemetry to VPS-2, which does not use the proxy."""
    outside = {peer for peer in calls.connections if not peer[0].startswith(LOOPBACK)}
    assert outside - {(TELEMETRY, 4318)} == {(PROXY, 8080)}


def recorded(calls, query):
    """Yield the transport, labels, record and provider's log entry of each call whose record matches the query.

    More than one record can contain a turn's text, because OpenClaw can request an embedding of it.
    """
    ways = {path: way for way, path in PATHS.items()}
    entries = {entry["request_body_sha256"]: entry for entry in calls.log}
    for labels, line in loki(query):
        record = json.loads(line)
        entry = entries[record["request"]["body_sha256"]]
        yield ways[entry["path"]], labels, record, entry


@pytest.mark.parametrize("way", PATHS)
def test_the_call_is_recorded_with_the_providers_tokens(calls, way):
    query = f'{{service_name="openclaw-proxy"}} | event_name="openclaw.egress.exchange" |= `{MARKS[way]}`'
    assert soon(lambda: way in {name for name, *_ in recorded(calls, query)})
    ((labels, record, entry),) = [found for name, *found in recorded(calls, query) if name == way]
    assert record["response"]["body_sha256"] == entry["body_sha256"]
    usage = entry["usage"]
    if way == "stream":
        sent = usage["input_tokens"] + usage["cache_creation_input_tokens"] + usage["cache_read_input_tokens"]
    else:
        sent = usage["prompt_tokens" if way == "plain" else "input_tokens"]
    assert int(labels["gen_ai_usage_input_tokens"]) == sent
    assert int(labels.get("gen_ai_usage_output_tokens", 0)) == usage.get("output_tokens", 0)
    assert labels["gen_ai_request_model"] == entry["model"]
    assert labels["openclaw_egress_outcome"] == "complete"
    assert (labels.get("network_protocol_name") == "websocket") is (way == "websocket")
    key = KEY if way == "stream" else OPENAI_KEY
    assert labels["openclaw_egress_key"] == hashlib.sha256(key.encode()).hexdigest()[:12]


def test_the_agent_uses_the_response_of_the_websocket(calls):
    assert "Hello from the provider stand-in" in calls.replies["websocket"]
