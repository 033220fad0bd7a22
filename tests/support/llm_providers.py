"""Fake internet: LLM providers and a few ordinary sites behind TLS, on loopback or in the lab (molecule/lab).

It imports only the standard library and `cryptography`, so that a container needs no other file of the repository. For
the content encodings br and zstd it also needs `brotli` and `backports.zstd`, and for WebSockets `websockets`. As a
command:

    python llm_providers.py --listen 127.0.0.1 --port 0 --tls-dir DIR [--hosts a,b] [--log FILE] [--http-port 0]
    python llm_providers.py --cert chain.pem --key key.pem ...        # with existing certificates

When the command listens, it prints `ready PORT`. With --http-port, it first prints `ready-http PORT`. SIGTERM and
SIGINT end it.
In a test:

    with LLMProviders() as providers:
        providers.port, providers.ca_file, providers.log        # log: list of dicts, see `Handler.handle_any`

The Host header selects the API. If it is `localhost`, 127.0.0.1 or ::1, the path selects the API. A WebSocket to
OpenAI's `/v1/responses` gets the events of a stream as messages, in response to each `response.create`.

| model            | response                                                                                  |
|------------------|-------------------------------------------------------------------------------------------|
| `fail-NNN`       | status NNN, in the provider's own error format                                            |
| `fail-stream`    | a stream that starts well and ends with the provider's error event                        |
| `tools`          | a call of the first tool in the request (or of `get_weather`)                             |
| `blocked`        | Gemini: a blocked prompt                                                                  |
| `fail-tail`      | Gemini: a stream of events that ends with an error outside of an event                    |
| `cached`         | Ollama: a response without `prompt_eval_count`                                            |
| `thinks`         | Bedrock, Cohere, Groq, Mistral: reasoning before the text                                 |
| `VENDOR.NAME`    | Bedrock: NAME is one of the above; Converse, and InvokeModel with the vendor's bodies     |
| any other        | a short text                                                                              |

Controls are headers `x-standin-NAME`, or members of an object `standin` in the request body (with underscores):

| control          | effect                                                                                    |
|------------------|-------------------------------------------------------------------------------------------|
| `events`         | number of text deltas in a stream (3)                                                     |
| `delay-ms`       | pause before each event of a stream except the first                                      |
| `first-byte-ms`  | pause before the status line                                                              |
| `encoding`       | gzip, deflate, raw-deflate, br or zstd, regardless of Accept-Encoding (identity)          |
| `body-bytes`     | minimum size of the response's text in bytes                                              |
| `abort-after`    | abort the connection after N bytes of the body (on the wire, without framing)             |
| `length-off-by`  | number of bytes to add to the correct Content-Length (plain responses)                    |
| `framing`        | `length` (plain default), `chunked` (stream default) or `close`                           |
| `delta-usage`    | Anthropic streams: `full` repeats all token counts in `message_delta`, `short` omits some |

Values in parentheses are defaults. Token counts are computed from the request (`tokens_of`) and are never 0. The log
entry of a response contains them.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import datetime
import hashlib
import http.server
import ipaddress
import json
import re
import signal
import socket
import ssl
import struct
import sys
import tempfile
import threading
import time
import urllib.parse
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ANTHROPIC = "api.anthropic.com"
OPENAI = "api.openai.com"
GEMINI = "generativelanguage.googleapis.com"
OLLAMA = "ollama.com"
BEDROCK = "bedrock-runtime.us-east-1.amazonaws.com"
DEFAULT_HOSTS = (
    ANTHROPIC,
    OPENAI,
    GEMINI,
    OLLAMA,
    BEDROCK,
    "example.com",
    "www.example.com",
    "example.org",
    "www.example.org",
    "packages.example.com",
    "registry.example.com",
    "git.example.com",
    "files.example.com",
    "localhost",
    "127.0.0.1",
)
Json = dict[str, Any]


# ── Certificates ─────────────────────────────────────────────────────────────────────────────────────────────────


def make_certificates(directory: Path, hosts: tuple[str, ...] = DEFAULT_HOSTS) -> tuple[Path, Path, Path]:
    """Create a CA and one leaf for all `hosts`. Return the paths of ca.pem, cert.pem (leaf + CA) and key.pem."""
    directory.mkdir(parents=True, exist_ok=True)
    now = datetime.datetime.now(datetime.UTC)
    ca_key, leaf_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Provider stand-in CA")])

    def builder(name: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(ca_name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=30))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), False)
        )

    def key_usage(*, ca: bool) -> x509.KeyUsage:
        return x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False)

    ca = (
        builder(ca_name, ca_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .add_extension(key_usage(ca=True), True)
        .sign(ca_key, hashes.SHA256())
    )
    leaf = (
        builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])]), leaf_key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .add_extension(key_usage(ca=False), True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
        .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), False)
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    paths = directory / "ca.pem", directory / "cert.pem", directory / "key.pem"
    paths[0].write_bytes(ca.public_bytes(pem))
    paths[1].write_bytes(leaf.public_bytes(pem) + ca.public_bytes(pem))
    paths[2].touch(mode=0o600)
    paths[2].write_bytes(
        leaf_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )
    return paths


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


# ── Requests ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Request:
    """One request with its body decoded; `json` is {} if the body is not a JSON object."""

    method: str
    host: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    json: Json

    def control(self, name: str, default: str = "") -> str:
        inner = self.json.get("standin")
        from_body = inner.get(name.replace("-", "_")) if isinstance(inner, dict) else None
        return self.headers.get(f"x-standin-{name}") or (default if from_body is None else str(from_body))

    def number(self, name: str, default: int = 0) -> int:
        return int(self.control(name) or default)

    @property
    def model(self) -> str:
        return str(self.json.get("model", ""))

    @property
    def streamed(self) -> bool:
        return self.json.get("stream") is True


@dataclass
class Answer:
    """A response whose body is in pieces. The fake sends each piece of a stream at once, by default as a chunk."""

    status: int
    content_type: str
    pieces: list[bytes]
    stream: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    model: str | None = None
    usage: Json | None = None


def json_answer(status: int, value: object, **more: Any) -> Answer:
    return Answer(status, "application/json", [json.dumps(value, ensure_ascii=False).encode()], **more)


def tokens_of(request: Json) -> dict[str, int]:
    """Return the token counts for a request. All are distinct and positive, so that tests can recognise them."""
    text = json.dumps([request.get(name) for name in ("system", "messages", "input")], sort_keys=True)
    size = len(text)
    return {
        "uncached": 11 + size // 4,
        "cache_read": 1009 + size % 97,
        "cache_write": 211 + size % 31,
        "output": 301 + size % 53,
        "reasoning": 17 + size % 13,
    }


def identifier(prefix: str, request: Request) -> str:
    return prefix + hashlib.sha256(request.body).hexdigest()[:24]


def text_deltas(request: Request) -> list[str]:
    """Return the response's text in pieces. It has non-ASCII characters, so that tests can split their bytes."""
    count = max(1, request.number("events", 3))
    words = [f"word {index} – é✓ " for index in range(1, count + 1)]
    if count == 3:
        words = ["Hello ", "from the provider ", "stand-in ✓"]
    missing = request.number("body-bytes") - len("".join(words).encode())
    share = -(-max(0, missing) // count)
    return [word + "x" * share for word in words]


def tool_call(request: Request) -> tuple[str, str]:
    """Return the name and the arguments (JSON text) of the tool call in a response of the model `tools`."""
    name = "get_weather"
    for tool in request.json.get("tools") or []:
        name = tool.get("name") or tool.get("function", {}).get("name") or name
        break
    return name, '{"city": "Zürich", "unit": "celsius"}'


def failing_status(model: str) -> int | None:
    tail = model.removeprefix("fail-")
    return int(tail) if tail != model and tail.isdigit() else None


# ── Anthropic Messages ───────────────────────────────────────────────────────────────────────────────────────────

ANTHROPIC_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def anthropic_error(request: Request, status: int, message: str) -> Answer:
    kind = ANTHROPIC_ERRORS.get(status, "api_error")
    request_id = identifier("req_", request)
    value = {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id}
    headers = {"request-id": request_id} | ({"retry-after": "1"} if status == 429 else {})
    return json_answer(status, value, headers=headers, model=request.model or None)


def anthropic_answer(request: Request) -> Answer:
    if not (request.headers.get("x-api-key") or request.headers.get("authorization")):
        return anthropic_error(request, 401, "x-api-key header is required")
    route = request.method, request.path
    if route == ("GET", "/v1/models"):
        model = {"type": "model", "id": "claude-opus-5", "display_name": "Claude Opus 5", "created_at": CREATED_TEXT}
        return json_answer(200, {"data": [model], "has_more": False, "first_id": model["id"], "last_id": model["id"]})
    if route == ("POST", "/v1/messages/count_tokens") and not failing_status(request.model):
        return json_answer(200, {"input_tokens": tokens_of(request.json)["uncached"]})
    if route not in (("POST", "/v1/messages"), ("POST", "/v1/messages/count_tokens")):
        return anthropic_error(request, 404, "Not found")
    if not request.model or not isinstance(request.json.get("messages"), list):
        return anthropic_error(request, 400, "model and messages: Field required")
    if status := failing_status(request.model):
        return anthropic_error(request, status, f"The fake was set to fail with {status}")
    return anthropic_message(request)


CREATED = 1_790_000_000
CREATED_TEXT = "2026-09-21T13:33:20Z"


def anthropic_message(request: Request) -> Answer:
    tokens = tokens_of(request.json)
    thinking = (request.json.get("thinking") or {}).get("type") in ("enabled", "adaptive")
    usage: Json = {
        "input_tokens": tokens["uncached"],
        "cache_creation_input_tokens": tokens["cache_write"],
        "cache_read_input_tokens": tokens["cache_read"],
        "cache_creation": {"ephemeral_5m_input_tokens": tokens["cache_write"], "ephemeral_1h_input_tokens": 0},
        "output_tokens": tokens["output"],
        "service_tier": "standard",
    }
    if thinking:
        usage["output_tokens_details"] = {"thinking_tokens": tokens["reasoning"]}
    blocks = list(anthropic_blocks(request, thinking))
    stop = "tool_use" if request.model == "tools" else "end_turn"
    message: Json = {
        "id": identifier("msg_", request),
        "type": "message",
        "role": "assistant",
        "model": request.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }
    headers = {"request-id": identifier("req_", request), "anthropic-organization-id": "org-stand-in"}
    more: Json = {"headers": headers, "model": request.model, "usage": usage}
    if not request.streamed:
        whole = {"content": [whole for _, _, whole in blocks], "stop_reason": stop, "usage": usage}
        return json_answer(200, message | whole, **more)

    start_usage = usage | {"output_tokens": 1}
    start_usage.pop("output_tokens_details", None)
    events: list[Json] = [{"type": "message_start", "message": message | {"usage": start_usage}}]
    for index, (start, deltas, _) in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": start})
        if index == 0:
            events.append({"type": "ping"})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    if request.model == "fail-stream":
        events = events[: len(events) - 2]
        events.append({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})
        more["usage"] = start_usage
    else:
        # The real API repeats all token counts in message_delta. With the control `delta-usage: short`, omit some, as
        # an older version of the API did. A client must then keep the counts of message_start.
        last = {name: usage[name] for name in ("output_tokens", "output_tokens_details") if name in usage}
        if request.control("delta-usage", "full") == "full":
            last = {n: v for n, v in usage.items() if n not in ("cache_creation", "service_tier")}
        events.append({"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None}, "usage": last})
        events.append({"type": "message_stop"})
    return Answer(200, "text/event-stream; charset=utf-8", [named_event(event) for event in events], True, **more)


def anthropic_blocks(request: Request, thinking: bool) -> Iterator[tuple[Json, list[Json], Json]]:
    """Yield (block at its start, deltas, complete block) for each content block."""
    if thinking:
        deltas: list[Json] = [{"type": "thinking_delta", "thinking": piece} for piece in ("Let me ", "think … ")]
        deltas.append({"type": "signature_delta", "signature": "c2lnbmF0dXJl"})
        whole = {"type": "thinking", "thinking": "Let me think … ", "signature": "c2lnbmF0dXJl"}
        yield {"type": "thinking", "thinking": "", "signature": ""}, deltas, whole
    texts = text_deltas(request)
    deltas = [{"type": "text_delta", "text": text} for text in texts]
    yield {"type": "text", "text": ""}, deltas, {"type": "text", "text": "".join(texts)}
    if request.model == "tools":
        name, arguments = tool_call(request)
        call = {"type": "tool_use", "id": identifier("toolu_", request), "name": name}
        pieces = ["", arguments[:7], arguments[7:]]
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
        yield call | {"input": {}}, deltas, call | {"input": json.loads(arguments)}


def named_event(event: Json) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n".encode()


# ── OpenAI ───────────────────────────────────────────────────────────────────────────────────────────────────────

OPENAI_ERRORS: dict[int, tuple[str, str | None]] = {
    401: ("invalid_request_error", "invalid_api_key"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
    500: ("server_error", None),
    503: ("server_error", "server_overloaded"),
}


def openai_error(request: Request, status: int, message: str) -> Answer:
    kind, code = OPENAI_ERRORS.get(status, ("invalid_request_error" if status < 500 else "server_error", None))
    value = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    headers = {"x-request-id": identifier("req_", request)} | ({"retry-after": "1"} if status == 429 else {})
    return json_answer(status, value, headers=headers, model=request.model or None)


def openai_answer(request: Request) -> Answer:
    if not request.headers.get("authorization"):
        return openai_error(request, 401, "You didn't provide an API key.")
    # Groq serves this API under the path prefix `/openai`.
    route = request.method, request.path.removeprefix("/openai")
    if route == ("GET", "/v1/models"):
        model = {"id": "gpt-5", "object": "model", "created": CREATED, "owned_by": "stand-in"}
        return json_answer(200, {"object": "list", "data": [model]})
    makers: dict[tuple[str, str], tuple[str, Callable[[Request], Answer]]] = {
        ("POST", "/v1/chat/completions"): ("messages", openai_chat),
        ("POST", "/v1/completions"): ("prompt", openai_completion),
        ("POST", "/v1/fim/completions"): ("prompt", openai_chat),
        ("POST", "/v1/responses"): ("input", openai_response),
        ("POST", "/v1/responses/input_tokens"): ("input", openai_count),
        ("POST", "/v1/embeddings"): ("input", openai_embeddings),
        ("POST", "/v1/images/generations"): ("prompt", openai_images),
    }
    if route not in makers:
        return openai_error(request, 404, f"Invalid URL ({request.method} {request.path})")
    needed, maker = makers[route]
    if not request.model or needed not in request.json:
        return openai_error(request, 400, f"Missing required parameter: 'model' or '{needed}'.")
    if status := failing_status(request.model):
        return openai_error(request, status, f"The fake was set to fail with {status}")
    return maker(request)


def openai_count(request: Request) -> Answer:
    value = {"object": "response.input_tokens", "input_tokens": tokens_of(request.json)["uncached"]}
    return json_answer(200, value, model=request.model)


def openai_embeddings(request: Request) -> Answer:
    tokens = tokens_of(request.json)["uncached"]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    texts = request.json.get("input")
    count = len(texts) if isinstance(texts, list) else 1
    data = [{"object": "embedding", "index": index, "embedding": [0.0023, -0.0093]} for index in range(count)]
    value = {"object": "list", "data": data, "model": request.model, "usage": usage}
    return json_answer(200, value, model=request.model, usage=usage)


def openai_images(request: Request) -> Answer:
    tokens = tokens_of(request.json)
    usage: Json = {"input_tokens": tokens["uncached"], "output_tokens": tokens["output"]}
    usage |= {"total_tokens": sum(usage.values())}
    usage["input_tokens_details"] = {"text_tokens": tokens["uncached"], "image_tokens": 0}
    if not request.streamed:
        usage["output_tokens_details"] = {"text_tokens": 0, "image_tokens": tokens["output"]}
        value = {"created": CREATED, "data": [{"b64_json": "QUJD"}], "usage": usage}
        return json_answer(200, value, model=request.model, usage=usage)
    base = {"b64_json": "QUJD", "created_at": CREATED, "output_format": "png", "size": "auto", "quality": "low"}
    base |= {"background": "auto"}
    events: list[Json] = [
        base | {"type": "image_generation.partial_image", "partial_image_index": index}
        for index in range(request.number("events", 2))
    ]
    events.append(base | {"type": "image_generation.completed", "usage": usage})
    pieces = [named_event(event) for event in events]
    return Answer(200, "text/event-stream; charset=utf-8", pieces, True, model=request.model, usage=usage)


def openai_usage(request: Request) -> Json:
    tokens = tokens_of(request.json)
    prompt = tokens["uncached"] + tokens["cache_read"]
    return {
        "prompt_tokens": prompt,
        "completion_tokens": tokens["output"],
        "total_tokens": prompt + tokens["output"],
        "prompt_tokens_details": {"cached_tokens": tokens["cache_read"], "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": tokens["reasoning"], "audio_tokens": 0},
    }


def openai_completion(request: Request) -> Answer:
    """Respond in the format of OpenAI's Completions API, with one choice."""
    envelope: Json = {"id": identifier("cmpl-", request), "object": "text_completion", "created": CREATED}
    envelope |= {"model": request.model}
    usage = openai_usage(request)
    more: Json = {"model": request.model, "usage": usage}
    ends: list[tuple[str, str | None]] = [(text, None) for text in text_deltas(request)] + [("", "stop")]
    if not request.streamed:
        ends = [("".join(text for text, _ in ends), "stop")]
    choices = [{"index": 0, "text": text, "logprobs": None, "finish_reason": end} for text, end in ends]
    if not request.streamed:
        return json_answer(200, envelope | {"choices": choices, "usage": usage}, **more)
    chunks = [envelope | {"choices": [choice]} for choice in choices]
    if request.model == "fail-stream":
        chunks[-1] = {"error": {"message": "The server had an error", "type": "server_error", "code": None}}
        more["usage"] = None
    elif (request.json.get("stream_options") or {}).get("include_usage") is True:
        chunks.append(envelope | {"choices": [], "usage": usage})
    else:
        more["usage"] = None
    pieces = [f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n".encode() for chunk in chunks]
    return Answer(200, "text/event-stream; charset=utf-8", [*pieces, b"data: [DONE]\n\n"], True, **more)


def openai_chat(request: Request) -> Answer:
    usage = openai_usage(request)
    tools = request.model == "tools"
    finish = "tool_calls" if tools else "stop"
    texts = text_deltas(request)
    name, arguments = tool_call(request)
    call = {"id": identifier("call_", request), "type": "function", "function": {"name": name, "arguments": arguments}}
    envelope: Json = {
        "id": identifier("chatcmpl-", request),
        "created": CREATED,
        "model": request.model,
        "service_tier": "default",
        "system_fingerprint": "fp_stand_in",
    }
    more: Json = {"headers": {"x-request-id": identifier("req_", request)}, "model": request.model, "usage": usage}
    if not request.streamed:
        message: Json = {"role": "assistant", "content": None if tools else "".join(texts), "refusal": None}
        if tools:
            message["tool_calls"] = [call]
        choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
        return json_answer(200, envelope | {"object": "chat.completion", "choices": [choice], "usage": usage}, **more)

    with_usage = (request.json.get("stream_options") or {}).get("include_usage") is True
    envelope |= {"object": "chat.completion.chunk"} | ({"usage": None} if with_usage else {})
    deltas: list[Json] = [{"role": "assistant", "content": None if tools else "", "refusal": None}]
    # Mistral reports the usage in every stream, and sends a complete tool call in one chunk.
    mistral = request.headers.get("user-agent", "").startswith("mistral")
    if tools and mistral:
        deltas.append({"tool_calls": [{"index": 0} | call]})
    elif tools:
        deltas.append({"tool_calls": [{"index": 0} | call | {"function": {"name": name, "arguments": ""}}]})
        for piece in (arguments[:7], arguments[7:]):
            deltas.append({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
    else:
        deltas += openai_thoughts(request, mistral=mistral) + [{"content": text} for text in texts]
    choices: list[list[Json]] = [[{"index": 0, "delta": d, "finish_reason": None}] for d in deltas]
    choices.append([{"index": 0, "delta": {}, "finish_reason": finish}])
    chunks = [envelope | {"choices": choice} for choice in choices]
    if request.model == "fail-stream":
        error = {"message": "The server had an error", "type": "server_error", "param": None, "code": None}
        chunks[-1] = {"error": error}
        more["usage"] = None
    elif request.path.startswith("/openai/"):
        chunks[-1]["x_groq"] = {"id": identifier("req_", request), "usage": usage}
    elif with_usage or mistral:
        chunks.append(envelope | {"choices": [], "usage": usage})
    else:
        more["usage"] = None
    pieces = [f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n".encode() for chunk in chunks]
    return Answer(200, "text/event-stream; charset=utf-8", [*pieces, b"data: [DONE]\n\n"], True, **more)


def openai_thoughts(request: Request, *, mistral: bool) -> list[Json]:
    """Return the deltas that contain reasoning, in the format of Mistral or of Groq."""
    texts = ("Let me ", "think … ") if request.model == "thinks" else ()
    if mistral:
        return [{"content": [{"type": "thinking", "thinking": [{"type": "text", "text": text}]}]} for text in texts]
    return [{"reasoning": text} for text in texts]


def openai_response(request: Request) -> Answer:
    tokens = tokens_of(request.json)
    prompt = tokens["uncached"] + tokens["cache_read"] + tokens["cache_write"]
    usage: Json = {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": tokens["cache_read"], "cache_write_tokens": tokens["cache_write"]},
        "output_tokens": tokens["output"],
        "output_tokens_details": {"reasoning_tokens": tokens["reasoning"]},
        "total_tokens": prompt + tokens["output"],
    }
    texts = text_deltas(request)
    if request.model == "tools":
        name, arguments = tool_call(request)
        item: Json = {"type": "function_call", "id": identifier("fc_", request), "status": "completed", "name": name}
        item |= {"call_id": identifier("call_", request), "arguments": arguments}
    else:
        part = {"type": "output_text", "text": "".join(texts), "annotations": [], "logprobs": []}
        item = {"type": "message", "id": identifier("msg_", request), "status": "completed", "role": "assistant"}
        item |= {"content": [part]}
    whole: Json = {
        "id": identifier("resp_", request),
        "object": "response",
        "created_at": CREATED,
        "model": request.model,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "output": [item],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": usage,
    }
    more: Json = {"headers": {"x-request-id": identifier("req_", request)}, "model": request.model, "usage": usage}
    if not request.streamed:
        return json_answer(200, whole, **more)
    begun = whole | {"status": "in_progress", "output": [], "usage": None}
    events: list[Json] = [{"type": "response.created", "response": begun}]
    events.append({"type": "response.in_progress", "response": begun})
    empty = item | {"status": "in_progress"} | ({"content": []} if "content" in item else {"arguments": ""})
    events.append({"type": "response.output_item.added", "output_index": 0, "item": empty})
    events += responses_deltas(item, texts)
    events.append({"type": "response.output_item.done", "output_index": 0, "item": item})
    if request.model == "fail-stream":
        failure = {"error": {"code": "server_error", "message": "The model failed"}, "status": "failed", "usage": None}
        events.append({"type": "response.failed", "response": whole | {"output": []} | failure})
        more["usage"] = None
    elif request.model == "incomplete":
        why = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
        events.append({"type": "response.incomplete", "response": whole | why})
    else:
        events.append({"type": "response.completed", "response": whole})
    pieces = [named_event(event | {"sequence_number": number}) for number, event in enumerate(events)]
    return Answer(200, "text/event-stream; charset=utf-8", pieces, True, **more)


def responses_deltas(item: Json, texts: list[str]) -> Iterator[Json]:
    place = {"item_id": item["id"], "output_index": 0}
    if item["type"] == "function_call":
        for piece in (item["arguments"][:7], item["arguments"][7:]):
            yield {"type": "response.function_call_arguments.delta", "delta": piece} | place
        arguments = {"name": item["name"], "arguments": item["arguments"]}
        yield {"type": "response.function_call_arguments.done"} | arguments | place
        return
    part = item["content"][0]
    place |= {"content_index": 0}
    yield {"type": "response.content_part.added", "part": part | {"text": ""}} | place
    for text in texts:
        yield {"type": "response.output_text.delta", "delta": text, "logprobs": []} | place
    yield {"type": "response.output_text.done", "text": part["text"], "logprobs": []} | place
    yield {"type": "response.content_part.done", "part": part} | place


# ── Google's generateContent ─────────────────────────────────────────────────────────────────────────────────────

GEMINI_ERRORS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def gemini_error(status: int, message: str) -> Json:
    return {"error": {"code": status, "message": message, "status": GEMINI_ERRORS.get(status, "UNKNOWN")}}


def gemini_answer(request: Request) -> Answer:
    if not ({"x-goog-api-key", "authorization"} & set(request.headers) or "key" in request.query):
        return json_answer(403, gemini_error(403, "Method doesn't allow unregistered callers"))
    model, _, method = request.path.rpartition("/")[2].rpartition(":")
    if request.method != "POST" or method not in ("generateContent", "streamGenerateContent", "countTokens"):
        return json_answer(404, gemini_error(404, "Not found"))
    if not isinstance(request.json.get("contents"), list):
        return json_answer(400, gemini_error(400, "contents is not specified"), model=model)
    if status := failing_status(model):
        return json_answer(status, gemini_error(status, f"The fake was set to fail with {status}"), model=model)
    if method == "countTokens":
        return json_answer(
            200, {"totalTokens": tokens_of({"input": request.json["contents"]})["uncached"]}, model=model
        )
    return gemini_response(request, model, streamed=method == "streamGenerateContent")


def gemini_response(request: Request, model: str, *, streamed: bool) -> Answer:
    tokens = tokens_of({"input": request.json.get("contents")})
    config = request.json.get("generationConfig") or {}
    thoughts = config.get("thinkingConfig") or {}
    # The SDK `google-genai` sends `include_thoughts` instead of `includeThoughts`.
    thinking = True in (thoughts.get("includeThoughts"), thoughts.get("include_thoughts"))
    counts = {
        "promptTokenCount": tokens["uncached"] + tokens["cache_read"],
        "cachedContentTokenCount": tokens["cache_read"],
        "toolUsePromptTokenCount": tokens["cache_write"],
        "candidatesTokenCount": tokens["output"],
    } | ({"thoughtsTokenCount": tokens["reasoning"]} if thinking else {})
    usage: Json = counts | {
        "totalTokenCount": sum(counts.values()) - tokens["cache_read"],
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": counts["promptTokenCount"]}],
    }
    envelope: Json = {"modelVersion": model, "responseId": identifier("", request)}
    if model == "blocked":
        # A blocked prompt has no candidates and no output count.
        usage = {"promptTokenCount": counts["promptTokenCount"], "totalTokenCount": counts["promptTokenCount"]}
        chunks = [{"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": usage} | envelope]
    else:
        chunks = gemini_chunks(request, model, usage, thinking=thinking)
        chunks = [chunk | envelope for chunk in chunks]
    more: Json = {"model": model, "usage": usage}
    if not streamed:
        if model != "blocked":
            parts = [part for chunk in chunks for part in chunk["candidates"][0]["content"]["parts"]]
            last = chunks[-1]["candidates"][0]
            chunks = [chunks[-1] | {"candidates": [last | {"content": {"parts": parts, "role": "model"}}]}]
        return json_answer(200, chunks[0], **more)
    error = gemini_error(503, "The model is overloaded")
    tail: list[bytes] = []
    if model.startswith("fail-"):
        chunks = [*chunks[:2], error] if model == "fail-stream" else chunks[:2]
        tail = [json.dumps(error, indent=2).encode() + b"\n"] if model == "fail-tail" else []
        more["usage"] = None
    if request.query.get("alt") != "sse":
        # Without `alt=sse` in the URL, the stream is one JSON array, whose elements arrive one by one.
        texts = [json.dumps(chunk, ensure_ascii=False, indent=2).encode() for chunk in chunks]
        pieces = [(b",\r\n" if number else b"[") + text for number, text in enumerate(texts)]
        return Answer(200, "application/json; charset=UTF-8", [*pieces, b"\n]\n"], True, **more)
    pieces = [f"data: {json.dumps(chunk, ensure_ascii=False)}\r\n\r\n".encode() for chunk in chunks]
    return Answer(200, "text/event-stream", pieces + tail, True, **more)


def gemini_chunks(request: Request, model: str, usage: Json, *, thinking: bool) -> list[Json]:
    """Return the chunks of a stream. Each has one part. The output token count grows with each chunk."""
    parts: list[Json] = [{"text": text} for text in text_deltas(request)]
    if model == "tools":
        name = "get_weather"
        for tool in request.json.get("tools") or []:
            name = next((declared["name"] for declared in tool.get("functionDeclarations") or []), name)
        arguments = {"city": "Zürich", "unit": "celsius", "days": 2}
        parts = [{"functionCall": {"id": identifier("call_", request), "name": name, "args": arguments}}]
        parts.append({"functionCall": {"name": name, "args": {}}})
    if thinking:
        parts = [{"text": "Let me ", "thought": True}, {"text": "think … ", "thought": True}, *parts]
        parts.append({"text": "", "thoughtSignature": "c2lnbmF0dXJl"})
    chunks: list[Json] = []
    for number, part in enumerate(parts, 1):
        # Omit the candidate's index, because Vertex AI omits the index 0 from the JSON.
        so_far = {name: usage[name] for name in ("promptTokenCount", "cachedContentTokenCount")}
        so_far |= {"candidatesTokenCount": number}
        chunks.append({"candidates": [{"content": {"parts": [part], "role": "model"}}], "usageMetadata": so_far})
    chunks[-1]["candidates"][0]["finishReason"] = "STOP"
    chunks[-1]["usageMetadata"] = usage
    return chunks


# ── Ollama ───────────────────────────────────────────────────────────────────────────────────────────────────────


def ollama_answer(request: Request) -> Answer:
    if request.method != "POST" or request.path not in ("/api/chat", "/api/generate"):
        return Answer(404, "text/plain; charset=utf-8", [b"404 page not found"])
    if not request.model:
        return json_answer(400, {"error": "model is required"})
    if status := failing_status(request.model):
        value = {"error": f"the fake was set to fail with {status}"}
        return json_answer(status, value, model=request.model)
    chat = request.path == "/api/chat"
    tokens = tokens_of(request.json)
    usage: Json = {
        "prompt_eval_count": tokens["uncached"] + tokens["cache_read"],
        "prompt_eval_cached_count": tokens["cache_read"],
        "eval_count": tokens["output"],
    }
    if request.model == "cached":
        usage = {"eval_count": tokens["output"]}
    deltas = ollama_deltas(request, chat=chat)
    if not chat and not request.json.get("prompt"):
        # In Ollama, a request without a prompt only loads the model.
        usage, deltas, reason = {}, [], "load"
    else:
        reason = "stop"
    end: Json = {"done": True, "done_reason": reason, "total_duration": 5043500667, "load_duration": 5025959} | usage
    more: Json = {"model": request.model, "usage": usage or None}
    text = "content" if chat else "response"

    def value(members: Json, rest: Json) -> Json:
        message = {"message": {"role": "assistant"} | members} if chat else members
        return {"model": request.model, "created_at": CREATED_TEXT} | message | rest

    if request.json.get("stream") is False:
        whole: Json = {text: "".join(delta[text] for delta in deltas)}
        if thinking := "".join(delta.get("thinking", "") for delta in deltas):
            whole["thinking"] = thinking
        if calls := [call for delta in deltas for call in delta.get("tool_calls", [])]:
            whole["tool_calls"] = calls
        return json_answer(200, value(whole, end), **more)
    values = [value(delta, {"done": False}) for delta in deltas]
    if request.model == "fail-stream":
        values = [*values[:2], {"error": "an error was encountered while running the model"}]
        more["usage"] = None
    else:
        values.append(value({text: ""}, end))
    lines = [json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in values]
    return Answer(200, "application/x-ndjson", lines, True, **more)


def ollama_deltas(request: Request, *, chat: bool) -> list[Json]:
    text = "content" if chat else "response"
    deltas: list[Json] = [{text: piece} for piece in text_deltas(request)]
    if request.model == "tools" and chat:
        name, arguments = tool_call(request)
        calls = [{"id": identifier("call_", request), "function": {"name": name, "arguments": json.loads(arguments)}}]
        calls.append({"function": {"index": 1, "name": name, "arguments": {}}})
        deltas = [{text: "", "tool_calls": [call]} for call in calls]
    if request.json.get("think"):
        deltas = [{text: "", "thinking": piece} for piece in ("Let me ", "think … ")] + deltas
    return deltas


# ── Cohere ───────────────────────────────────────────────────────────────────────────────────────────────────────


def cohere_answer(request: Request) -> Answer:
    if status := failing_status(request.model):
        value = {"id": identifier("", request), "message": f"the fake was set to fail with {status}"}
        return json_answer(status, value, model=request.model)
    tokens = tokens_of(request.json)
    usage: Json = {
        "billed_units": {"input_tokens": 1, "output_tokens": tokens["output"]},
        "tokens": {"input_tokens": tokens["uncached"] + tokens["cache_read"], "output_tokens": tokens["output"]},
        "cached_tokens": tokens["cache_read"],
    }
    more: Json = {"model": request.model, "usage": usage}
    texts = text_deltas(request)
    name, arguments = tool_call(request)
    call = {"id": identifier("call_", request), "type": "function", "function": {"name": name, "arguments": ""}}
    tools = request.model == "tools"
    reason = "TOOL_CALL" if tools else "COMPLETE"
    if not request.streamed:
        message = {"role": "assistant", "content": [{"type": "text", "text": "".join(texts)}]}
        value = {"id": identifier("", request), "finish_reason": reason, "message": message, "usage": usage}
        return json_answer(200, value, **more)
    events: list[Json] = [{"type": "message-start", "id": identifier("", request)}]
    events[0]["delta"] = {"message": {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": []}}

    def add(kind: str, index: int, message: Json) -> None:
        events.append({"type": kind, "index": index, "delta": {"message": message}})

    if request.model == "thinks":
        add("content-start", 0, {"content": {"type": "thinking", "thinking": ""}})
        for text in ("Let me ", "think … "):
            add("content-delta", 0, {"content": {"thinking": text}})
        events.append({"type": "content-end", "index": 0})
    if tools:
        events.append({"type": "tool-plan-delta", "delta": {"message": {"tool_plan": "I will look. "}}})
        add("tool-call-start", 0, {"tool_calls": call})
        for text in (arguments[:7], arguments[7:]):
            add("tool-call-delta", 0, {"tool_calls": {"function": {"arguments": text}}})
        events.append({"type": "tool-call-end", "index": 0})
    else:
        add("content-start", 1, {"content": {"type": "text", "text": ""}})
        for text in texts:
            add("content-delta", 1, {"content": {"text": text}})
        events.append({"type": "content-end", "index": 1})
    events.append({"type": "message-end", "delta": {"finish_reason": reason, "usage": usage}})
    return Answer(200, "text/event-stream", [named_event(event) for event in events], True, **more)


# ── Amazon Bedrock ───────────────────────────────────────────────────────────────────────────────────────────────

BEDROCK_ERRORS = {
    400: "ValidationException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    424: "ModelErrorException",
    429: "ThrottlingException",
    500: "InternalServerException",
    503: "ServiceUnavailableException",
}


def aws_message(headers: dict[str, str], payload: bytes) -> bytes:
    """Return a message in Amazon's event stream encoding."""
    lines = b"".join(
        struct.pack(">B", len(name)) + name.encode() + struct.pack(">BH", 7, len(value)) + value.encode()
        for name, value in headers.items()
    )
    head = struct.pack(">II", 16 + len(lines) + len(payload), len(lines))
    message = head + struct.pack(">I", zlib.crc32(head)) + lines + payload
    return message + struct.pack(">I", zlib.crc32(message))


def aws_event(name: str, value: Json) -> bytes:
    kinds = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    # Bedrock pads each event, so that its length does not reveal the length of the text.
    return aws_message(kinds, json.dumps(value | {"p": "abcdefghijkl"}, ensure_ascii=False).encode())


def aws_exception(name: str, message: str) -> bytes:
    kinds = {":exception-type": name, ":content-type": "application/json", ":message-type": "exception"}
    return aws_message(kinds, json.dumps({"message": message}).encode())


def bedrock_answer(request: Request) -> Answer:
    operations = "converse(?:-stream)?|invoke(?:-with-response-stream)?|count-tokens"
    found = re.fullmatch(rf"/model/([^/]+)/({operations})", request.path)
    if found is None or request.method != "POST":
        return bedrock_error(404, "no such operation")
    model, operation = urllib.parse.unquote(found[1]), found[2]
    name = model.rpartition(".")[2].partition(":")[0]
    if status := failing_status(name):
        return bedrock_error(status, f"The fake was set to fail with {status}")
    if operation == "count-tokens":
        tokens = tokens_of({"input": request.json.get("input")})["uncached"]
        return json_answer(200, {"inputTokens": tokens}, model=model)
    inner = replace(request, json=request.json | {"model": name, "stream": operation.endswith("stream")})
    if operation.startswith("converse"):
        reply = bedrock_converse(inner)
    elif "anthropic." in model:
        reply = bedrock_anthropic(inner)
    else:
        reply = bedrock_other(inner)
    return replace(reply, model=model)


def bedrock_error(status: int, message: str) -> Answer:
    name = BEDROCK_ERRORS.get(status, "InternalServerException")
    return json_answer(status, {"message": message}, headers={"x-amzn-errortype": f"{name}:http://aws.example/"})


def bedrock_stream(request: Request, events: list[bytes], usage: Json | None) -> Answer:
    if request.model == "fail-stream":
        events = [*events[:3], aws_exception("throttlingException", "Too many requests")]
        usage = None
    return Answer(200, "application/vnd.amazon.eventstream", events, True, usage=usage)


def bedrock_converse(request: Request) -> Answer:
    tokens = tokens_of(request.json)
    names = {"uncached": "inputTokens", "output": "outputTokens"}
    if request.model == "cached":
        names |= {"cache_read": "cacheReadInputTokens", "cache_write": "cacheWriteInputTokens"}
    usage: Json = {name: tokens[kind] for kind, name in names.items()}
    usage["totalTokens"] = sum(usage.values())
    if request.model == "cached":
        usage["cacheDetails"] = [{"ttl": "1h", "inputTokens": 7}]
    blocks: list[tuple[Json, list[Json]]] = [({}, [{"text": text} for text in text_deltas(request)])]
    if request.model == "tools":
        tool, arguments = "get_weather", tool_call(request)[1]
        for one in (request.json.get("toolConfig") or {}).get("tools") or []:
            tool = one.get("toolSpec", {}).get("name", tool)
        start = {"toolUse": {"toolUseId": identifier("tooluse_", request), "name": tool}}
        blocks.append((start, [{"toolUse": {"input": piece}} for piece in (arguments[:9], arguments[9:])]))
    if request.model == "thinks":
        thought = [{"reasoningContent": {"text": text}} for text in ("Let me ", "think … ")]
        blocks.insert(0, ({}, [*thought, {"reasoningContent": {"signature": "c2lnbmF0dXJl"}}]))
    reason = "tool_use" if request.model == "tools" else "end_turn"
    end = {"usage": usage, "metrics": {"latencyMs": 551}, "serviceTier": {"type": "default"}}
    if not request.streamed:
        content = [bedrock_block(start, deltas) for start, deltas in blocks]
        message = {"role": "assistant", "content": content}
        return json_answer(200, {"output": {"message": message}, "stopReason": reason} | end, usage=usage)
    events = [aws_event("messageStart", {"role": "assistant"})]
    for index, (start, deltas) in enumerate(blocks):
        if start:
            events.append(aws_event("contentBlockStart", {"start": start, "contentBlockIndex": index}))
        events += [aws_event("contentBlockDelta", {"delta": delta, "contentBlockIndex": index}) for delta in deltas]
        events.append(aws_event("contentBlockStop", {"contentBlockIndex": index}))
    events += [aws_event("messageStop", {"stopReason": reason}), aws_event("metadata", end)]
    return bedrock_stream(request, events, usage)


def bedrock_block(start: Json, deltas: list[Json]) -> Json:
    """Return the content block of a non-streaming response, assembled from the deltas of a stream."""
    if start:
        arguments = "".join(delta["toolUse"]["input"] for delta in deltas)
        return {"toolUse": start["toolUse"] | {"input": json.loads(arguments)}}
    if "text" in deltas[0]:
        return {"text": "".join(delta["text"] for delta in deltas)}
    pieces = [delta["reasoningContent"] for delta in deltas]
    text = "".join(piece.get("text", "") for piece in pieces)
    return {"reasoningContent": {"reasoningText": {"text": text, "signature": "c2lnbmF0dXJl"}}}


def bedrock_anthropic(request: Request) -> Answer:
    """Return Anthropic's response in Bedrock's framing: each event becomes a chunk, and the last chunk has metrics."""
    reply = anthropic_message(request)
    if not request.streamed:
        return reply
    events = [json.loads(piece.partition(b"data: ")[2]) for piece in reply.pieces]
    events = [event for event in events if event["type"] not in ("ping", "error")]
    events[-1]["amazon-bedrock-invocationMetrics"] = {"inputTokenCount": 1, "outputTokenCount": 2}
    return bedrock_stream(request, [bedrock_chunk(event) for event in events], reply.usage)


def bedrock_other(request: Request) -> Answer:
    """Return a response of Meta's models. The token counts are in the headers, or in the last chunk of a stream."""
    tokens = tokens_of({"input": request.json.get("prompt")})
    counts = {"inputTokenCount": tokens["uncached"], "outputTokenCount": tokens["output"]}
    texts = text_deltas(request)
    if not request.streamed:
        headers = {
            "x-amzn-bedrock-input-token-count": str(tokens["uncached"]),
            "x-amzn-bedrock-output-token-count": str(tokens["output"]),
        }
        return json_answer(200, {"generation": "".join(texts), "stop_reason": "stop"}, headers=headers, usage=counts)
    values: list[Json] = [{"generation": text, "stop_reason": None} for text in texts]
    values.append({"generation": "", "stop_reason": "stop", "amazon-bedrock-invocationMetrics": counts})
    return bedrock_stream(request, [bedrock_chunk(value) for value in values], counts)


def bedrock_chunk(value: Json) -> bytes:
    return aws_event("chunk", {"bytes": base64.b64encode(json.dumps(value, ensure_ascii=False).encode()).decode()})


# ── Partners' models on Google Vertex AI ─────────────────────────────────────────────────────────────────────────

VERTEX = re.compile(r"/publishers/(anthropic|mistralai)/models/([^/]+):(rawPredict|streamRawPredict)$")


def vertex_answer(request: Request) -> Answer:
    """Respond in the format of the model's vendor. For the model `fail-503`, respond with a Google error."""
    found = VERTEX.search(request.path)
    assert found is not None
    model = urllib.parse.unquote(found[2])
    members = request.json | {"model": model, "stream": found[3] == "streamRawPredict"}
    if model == "fail-503":
        return json_answer(503, gemini_error(503, "The service is unavailable"), model=model)
    if found[1] == "mistralai":
        headers = request.headers | {"user-agent": "mistral"}
        return openai_answer(replace(request, path="/v1/chat/completions", json=members, headers=headers))
    if model == "count-tokens":
        return anthropic_answer(replace(request, path="/v1/messages/count_tokens"))
    return anthropic_answer(replace(request, path="/v1/messages", json=members))


# ── Ordinary sites ───────────────────────────────────────────────────────────────────────────────────────────────


def ordinary_answer(request: Request) -> Answer:
    if request.path.startswith("/bytes/"):
        size = int(request.path.removeprefix("/bytes/"))
        block = bytes(range(256)) * 256
        pieces = [block[: min(len(block), size - at)] for at in range(0, size, len(block))]
        return Answer(200, "application/octet-stream", pieces or [b""])
    if request.path == "/echo":
        seen = {"method": request.method, "host": request.host, "headers": request.headers}
        return json_answer(200, seen | {"body": request.body.decode("utf-8", "replace")})
    if request.path == "/redirect":
        to = {"location": request.query.get("to", "/")}
        return Answer(302, "text/plain; charset=utf-8", [b"see other place\n"], headers=to)
    if request.path == "/":
        page = f"<!doctype html><html><head><title>{request.host}</title></head><body><h1>It works</h1></body></html>\n"
        return Answer(200, "text/html; charset=utf-8", [page.encode()])
    return Answer(404, "text/plain; charset=utf-8", [b"not found\n"])


def answer(request: Request) -> Answer:
    """Respond as the site in the Host header. If the header is a local address, the path selects the API."""
    api_paths = {"/v1/messages": anthropic_answer, "/v1/chat/": openai_answer, "/v1/responses": openai_answer}
    api_paths |= {"/v1/completions": openai_answer, "/v1/fim/": openai_answer}
    api_paths |= {"/v1/embeddings": openai_answer, "/v1/images/": openai_answer, "/openai/v1/": openai_answer}
    api_paths |= {"/v2/chat": cohere_answer}
    if request.host == ANTHROPIC:
        return anthropic_answer(request)
    if request.host == OPENAI:
        return openai_answer(request)
    if request.host == GEMINI:
        return gemini_answer(request)
    if request.host == OLLAMA:
        return ollama_answer(request)
    if request.host == BEDROCK:
        return bedrock_answer(request)
    if request.host in ("localhost", "127.0.0.1", "::1"):
        if request.path == "/v1/models":
            return anthropic_answer(request) if "anthropic-version" in request.headers else openai_answer(request)
        for prefix, maker in api_paths.items():
            if request.path.startswith(prefix):
                return maker(request)
        if request.path.endswith((":generateContent", ":streamGenerateContent", ":countTokens")):
            return gemini_answer(request)
        if request.path in ("/api/chat", "/api/generate"):
            return ollama_answer(request)
        if request.path.startswith("/model/"):
            return bedrock_answer(request)
        if VERTEX.search(request.path):
            return vertex_answer(request)
    return ordinary_answer(request)


# ── Content encodings ────────────────────────────────────────────────────────────────────────────────────────────


def _zstd() -> Any:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


class Encoder:
    """Content encoder. `piece` flushes, so a client can decode its output immediately. `end` returns the last bytes."""

    def __init__(self, name: str) -> None:
        self.name = {"raw-deflate": "deflate", "": "identity"}.get(name, name)
        if name in ("gzip", "deflate", "raw-deflate"):
            bits = {"gzip": 31, "deflate": 15, "raw-deflate": -15}[name]
            deflater = zlib.compressobj(6, zlib.DEFLATED, bits)
            self.piece = lambda data: deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH)
            self.end = deflater.flush
        elif name == "br":
            import brotli

            brotli_encoder = brotli.Compressor(quality=4)
            self.piece = lambda data: brotli_encoder.process(data) + brotli_encoder.flush()
            self.end = brotli_encoder.finish
        elif name == "zstd":
            zstd = _zstd()
            frame = zstd.ZstdCompressor()
            self.piece = lambda data: frame.compress(data, frame.FLUSH_BLOCK)
            self.end = frame.flush
        elif self.name == "identity":
            self.piece = bytes
            self.end = bytes
        else:
            raise ValueError(f"unknown content encoding {name!r}")


def decode_request_body(body: bytes, encoding: str) -> bytes:
    """Return a request body, decompressed according to its content encoding."""
    if encoding in ("gzip", "deflate"):
        return zlib.decompress(body, 47)
    if encoding == "zstd":
        return bytes(_zstd().decompress(body))
    if encoding == "br":
        import brotli

        return bytes(brotli.decompress(body))
    return body


# ── HTTP ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Handler(http.server.BaseHTTPRequestHandler):
    """HTTP/1.1 handler with keep-alive. Each connection has one thread, which also does the TLS handshake."""

    protocol_version = "HTTP/1.1"
    server_version = "provider-stand-in"
    sys_version = ""
    disable_nagle_algorithm = True
    timeout = 300
    server: Server

    def setup(self) -> None:
        if self.server.tls is not None:
            self.request.settimeout(30)
            self.request = self.server.tls.wrap_socket(self.request, server_side=True)
        super().setup()

    def finish(self) -> None:
        super().finish()
        if isinstance(self.connection, ssl.SSLSocket):
            with contextlib.suppress(OSError, ValueError):
                # Send close_notify: without it, a body that ends when the connection closes looks truncated. Do not
                # wait for the client's close_notify.
                self.connection.settimeout(0)
                self.connection.unwrap()
            self.connection.close()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Print nothing, because `LLMProviders.log` has an entry for every request."""

    def handle_any(self) -> None:
        if self.headers.get("upgrade", "").lower() == "websocket" and self.path.startswith("/v1/responses"):
            self.serve_websocket()
            return
        began = time.time()
        raw, whole = self.read_body()
        split = urllib.parse.urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        host = urllib.parse.urlsplit("//" + headers.get("host", "")).hostname or ""
        body, value = raw, {}
        # Treat an invalid body as `{}`: an LLM API then responds with its error for missing fields.
        with contextlib.suppress(Exception):
            body = decode_request_body(raw, headers.get("content-encoding", ""))
            parsed = json.loads(body)
            value = parsed if isinstance(parsed, dict) else {}
        query = dict(urllib.parse.parse_qsl(split.query))
        request = Request(self.command, host, split.path, query, headers, body, value)
        reply = answer(request)
        entry: Json = {
            "time": began,
            "method": request.method,
            "host": request.host,
            "path": self.path,
            "model": reply.model,
            "status": reply.status,
            "usage": reply.usage,
            "stream": reply.stream,
            "request_header_names": sorted(request.headers),
            "request_body_sha256": hashlib.sha256(raw).hexdigest(),
            "request_bytes": len(raw),
        }
        if whole:
            self.send_answer(request, reply, entry)
        else:
            # Like a real provider, do not respond to an incomplete request.
            self.close_connection = True
            self.server.note(entry | {"status": 0, "outcome": "request_cut"})

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = do_OPTIONS = handle_any

    def serve_websocket(self) -> None:
        """Serve OpenAI's Responses API over a WebSocket until the client closes the connection."""
        # Import the library here: a container without tests of WebSockets does not have it.
        from websockets.frames import Frame, Opcode
        from websockets.http11 import Request as Handshake
        from websockets.server import ServerProtocol

        self.close_connection = True
        protocol = ServerProtocol(max_size=None)
        # The handler has read the handshake, but the library must also parse it.
        lines = [self.requestline, *(f"{name}: {value}" for name, value in self.headers.items()), "", ""]
        data = "\r\n".join(lines).encode()
        message = b""
        while data and not protocol.close_expected():
            protocol.receive_data(data)
            for event in protocol.events_received():
                if isinstance(event, Handshake):
                    protocol.send_response(protocol.accept(event))
                elif isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.CONT):
                    message += event.data
                    if event.fin:
                        self.answer_message(protocol, message)
                        message = b""
            self.send_frames(protocol)
            data = self.rfile.read1(65536)

    def answer_message(self, protocol: Any, message: bytes) -> None:
        """Send the events of the response to one `response.create`, one message each. Add a log entry first."""
        value = json.loads(message)
        headers = {name.lower(): text for name, text in self.headers.items()}
        host = urllib.parse.urlsplit("//" + headers.get("host", "")).hostname or ""
        value |= {"stream": True}
        request = Request("POST", host, urllib.parse.urlsplit(self.path).path, {}, headers, message, value)
        reply = openai_answer(request)
        events = [piece.partition(b"\ndata: ")[2].rstrip() for piece in reply.pieces]
        digest = hashlib.sha256(b"\n".join(events)).hexdigest()
        entry: Json = {"time": time.time(), "method": "GET", "host": host, "path": self.path, "websocket": True}
        entry |= {"model": reply.model, "status": 101, "usage": reply.usage, "stream": True, "outcome": "complete"}
        entry |= {"request_body_sha256": hashlib.sha256(message).hexdigest(), "body_sha256": digest}
        self.server.note(entry)
        for event in events:
            protocol.send_text(event)
            self.send_frames(protocol)

    def send_frames(self, protocol: Any) -> None:
        self.wfile.write(b"".join(protocol.data_to_send()))

    def read_body(self) -> tuple[bytes, bool]:
        """Return the body of the request, and whether it is complete."""
        try:
            if "chunked" in self.headers.get("transfer-encoding", "").lower():
                return self.read_chunks()
            length = int(self.headers.get("content-length") or 0)
            data = self.rfile.read(length)
        except OSError:
            return b"", False
        return data, len(data) == length

    def read_chunks(self) -> tuple[bytes, bool]:
        parts: list[bytes] = []
        while line := self.rfile.readline():
            size = int(line.split(b";")[0], 16)
            if not size:
                while line.strip():
                    line = self.rfile.readline()
                return b"".join(parts), bool(line)
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        return b"".join(parts), False

    def send_answer(self, request: Request, reply: Answer, entry: Json) -> None:
        sent = Sent()
        try:
            self.send_pieces(request, reply, sent, entry)
        except (OSError, ValueError) as problem:
            self.close_connection = True
            if not sent.noted:
                self.server.note(entry | sent.facts("client_gone") | {"problem": type(problem).__name__})

    def send_pieces(self, request: Request, reply: Answer, sent: Sent, entry: Json) -> None:
        pause = self.server.stopping.wait
        encoder = Encoder(request.control("encoding"))
        framing = request.control("framing", "chunked" if reply.stream else "length")
        abort_after = request.number("abort-after") if request.control("abort-after") else None
        pieces = iter(reply.pieces)
        if framing == "length":
            whole = b"".join(reply.pieces)
            coded = encoder.piece(whole) + encoder.end() if encoder.name != "identity" else whole
            sent.count(whole)
            wire = iter([coded])
            length = len(coded) + request.number("length-off-by")
        else:
            length = None
            wire = self.encoded(pieces, encoder, sent)

        pause(request.number("first-byte-ms") / 1000)
        self.send_response(reply.status)
        self.send_header("content-type", reply.content_type)
        if encoder.name != "identity":
            self.send_header("content-encoding", encoder.name)
        if framing == "chunked":
            self.send_header("transfer-encoding", "chunked")
        elif length is not None:
            self.send_header("content-length", str(length))
        if framing == "close" or (length is not None and request.number("length-off-by")):
            self.send_header("connection", "close")
            self.close_connection = True
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if request.method == "HEAD":
            self.server.note(entry | sent.facts("complete"))
            return

        delay = request.number("delay-ms") / 1000
        held = b""
        for index, data in enumerate(wire):
            # Hold each piece of a plain response until the next one is ready. Send the last one after the log entry.
            if held:
                self.wfile.write(held)
                held = b""
            if delay and index:
                pause(delay)
            if abort_after is not None and sent.wire_bytes + len(data) >= abort_after:
                rest = data[: abort_after - sent.wire_bytes]
                sent.wire_bytes += len(rest)
                sent.noted = True
                self.server.note(entry | sent.facts("aborted"))
                self.wfile.write(self.framed(rest, framing) if rest else b"")
                with contextlib.suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return
            sent.wire_bytes += len(data)
            framed = self.framed(data, framing) if data else b""
            if reply.stream:
                self.wfile.write(framed)
            else:
                held = framed
        # Log before sending the last bytes, so that a client with the whole response finds the entry in the log.
        sent.noted = True
        self.server.note(entry | sent.facts("complete"))
        self.wfile.write(held + (b"0\r\n\r\n" if framing == "chunked" else b""))

    @staticmethod
    def encoded(pieces: Iterator[bytes], encoder: Encoder, sent: Sent) -> Iterator[bytes]:
        for piece in pieces:
            sent.count(piece)
            yield encoder.piece(piece)
        if rest := encoder.end():
            yield rest

    @staticmethod
    def framed(data: bytes, framing: str) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if framing == "chunked" else data


class Sent:
    """Progress of sending a response body: size and digest before content encoding, and number of bytes sent."""

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()
        self.body_bytes = 0
        self.wire_bytes = 0
        self.noted = False

    def count(self, piece: bytes) -> None:
        self.sha256.update(piece)
        self.body_bytes += len(piece)

    def facts(self, outcome: str) -> Json:
        digest = self.sha256.hexdigest()
        return {"outcome": outcome, "body_sha256": digest, "bytes": self.body_bytes, "wire_bytes": self.wire_bytes}


class Server(http.server.ThreadingHTTPServer):
    """HTTP server on one port. It calls `note` with a log entry for each request."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(
        self,
        address: tuple[str, int],
        tls: ssl.SSLContext | None,
        note: Callable[[Json], None],
        stopping: threading.Event,
    ) -> None:
        self.tls = tls
        self.note = note
        self.stopping = stopping
        super().__init__(address, Handler)

    def server_bind(self) -> None:
        # Replace HTTPServer's method, which looks up this machine's name in DNS.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect or reject the certificate; print all other errors."""
        problem = sys.exception() if sys.version_info >= (3, 11) else sys.exc_info()[1]
        if not isinstance(problem, OSError):
            super().handle_error(request, client_address)


class LLMProviders:
    """The fake providers, in threads of this process. They log every request in `log`, and in `log_file` if set."""

    def __init__(
        self,
        *,
        listen: str = "127.0.0.1",
        port: int = 0,
        http_port: int | None = None,
        tls_dir: Path | None = None,
        cert: Path | None = None,
        key: Path | None = None,
        hosts: tuple[str, ...] = DEFAULT_HOSTS,
        log_file: Path | None = None,
    ) -> None:
        self._entries: list[Json] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._own_dir: tempfile.TemporaryDirectory[str] | None = None
        self.log_file = log_file
        self.ca_file: Path | None = None
        if cert is None or key is None:
            if tls_dir is None:
                self._own_dir = tempfile.TemporaryDirectory(prefix="provider-stand-in-")
                tls_dir = Path(self._own_dir.name)
            self.ca_file, cert, key = make_certificates(tls_dir, hosts)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        context.set_alpn_protocols(["http/1.1"])
        self._servers = [Server((listen, port), context, self._note, self._stopping)]
        if http_port is not None:
            self._servers.append(Server((listen, http_port), None, self._note, self._stopping))
        self.port = self._servers[0].server_port
        self.http_port = self._servers[-1].server_port if http_port is not None else None

    @property
    def log(self) -> list[Json]:
        """Return the log entries of all requests so far, in the order in which their responses ended."""
        with self._lock:
            return list(self._entries)

    def asked_since(self, began: float) -> list[Json]:
        """Return the log entries of requests that arrived after a time (Unix seconds).

        Compare arrival times, because a request that arrived earlier can still be added to `log` later.
        """
        return [entry for entry in self.log if entry["time"] >= began]

    def _note(self, entry: Json) -> None:
        with self._lock:
            self._entries.append(entry)
            if self.log_file is not None:
                with self.log_file.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(entry, ensure_ascii=False) + "\n")

    def start(self) -> None:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self._stopping.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()
        if self._own_dir is not None:
            self._own_dir.cleanup()

    def __enter__(self) -> LLMProviders:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description="Run fakes of LLM providers and of ordinary sites, for tests.")
    parser.add_argument("--listen", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="port for TLS; 0: any free port (default)")
    parser.add_argument("--http-port", type=int, help="also serve plain HTTP on this port; 0: any free port")
    parser.add_argument("--tls-dir", type=Path, help="directory for ca.pem, cert.pem and key.pem")
    parser.add_argument("--cert", type=Path, help="use this certificate chain instead of a new one")
    parser.add_argument("--key", type=Path, help="private key for --cert")
    parser.add_argument("--hosts", help="comma-separated names for the certificate")
    parser.add_argument("--log", type=Path, help="append one JSON line per response to this file")
    arguments = parser.parse_args()
    if (arguments.cert is None) != (arguments.key is None):
        parser.error("--cert and --key must be given together")
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with LLMProviders(
        listen=arguments.listen,
        port=arguments.port,
        http_port=arguments.http_port,
        tls_dir=arguments.tls_dir,
        cert=arguments.cert,
        key=arguments.key,
        hosts=tuple(arguments.hosts.split(",")) if arguments.hosts else DEFAULT_HOSTS,
        log_file=arguments.log,
    ) as providers:
        if providers.http_port is not None:
            print(f"ready-http {providers.http_port}", flush=True)
        print(f"ready {providers.port}", flush=True)
        ended.wait()


if __name__ == "__main__":
    main()
