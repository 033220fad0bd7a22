"""Tests of OpenAI's Completions with examples from its reference: plain responses, streams and requests."""

from __future__ import annotations

import json

import pytest

from openclaw_egress.llm import RequestFacts, ResponseFacts, Usage, read_request, response_reader
from openclaw_egress.llm.registry import api_of

PATH = "/v1/completions"
STREAM = "text/event-stream"
HEAD = {"id": "cmpl-7iA7", "object": "text_completion", "created": 1690759702, "model": "gpt-3.5-turbo-instruct"}
USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}


def read(content_type: str | None, *chunks: bytes, path: str = PATH) -> ResponseFacts:
    reader = response_reader("api.openai.com", path, content_type)
    for chunk in chunks:
        reader.feed(chunk)
    return reader.finish()


def event(*choices: object, **members: object) -> bytes:
    return f"data: {json.dumps({**HEAD, 'choices': choices, **members}, ensure_ascii=False)}\n\n".encode()


def choice(text: str, reason: str | None = None, index: int = 0) -> dict[str, object]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": reason}


EVENTS = [
    event(choice("Grü")),
    event(choice("two", index=1)),
    event(choice("ße ✓")),
    event(choice("", "length")),
    event(choice("", "stop", 1)),
    event(usage=USAGE),
    b"data: [DONE]\n\n",
]


def test_usage_and_finish_reasons_of_a_plain_response_are_read() -> None:
    body = {**HEAD, "choices": [choice("Hi", "length"), choice("Ho", "stop", 1)], "usage": USAGE}
    assert read("application/json", json.dumps(body).encode()) == ResponseFacts(
        model=HEAD["model"], id=HEAD["id"], finish_reasons=("length", "stop"), usage=Usage(5, 7)
    )


@pytest.mark.parametrize("content_type", [STREAM, None])
def test_stream_is_assembled_for_every_split_of_its_bytes(content_type: str | None) -> None:
    body = b"".join(EVENTS)
    texts = [("Grüße ✓", "length"), ("two", "stop")]
    expected = ResponseFacts(
        model=HEAD["model"],
        id=HEAD["id"],
        finish_reasons=("length", "stop"),
        usage=Usage(5, 7),
        messages=[
            {"role": "assistant", "parts": [{"type": "text", "content": text}], "finish_reason": reason}
            for text, reason in texts
        ],
    )
    for at in range(len(body) + 1):
        assert read(content_type, body[:at], body[at:]) == expected


def test_aborted_stream_has_no_usage() -> None:
    facts = read(STREAM, *EVENTS[:3])
    assert (facts.usage, facts.finish_reasons) == (Usage(), ())
    assert facts.messages is not None
    assert facts.messages[0]["parts"] == [{"type": "text", "content": "Grüße ✓"}]


def test_error_of_a_response_and_of_a_stream_is_read() -> None:
    error = b'{"error": {"message": "no", "type": "server_error", "code": null}}'
    assert read("application/json", error).error_type == "server_error"
    assert read(STREAM, EVENTS[0], b"data: " + error + b"\n\n").error_type == "server_error"


@pytest.mark.parametrize(
    ("path", "model"),
    [
        (PATH, "m"),
        ("/v1/fim/completions", "m"),
        ("/inference/v1/completions/", "m"),
        ("/openai/deployments/my-gpt/completions?api-version=1", "my-gpt"),
        ("/v1/engines/davinci/completions", "davinci"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_request(path: str, model: str, stream: bool) -> None:
    body = json.dumps({"model": "m", "prompt": "x"} | ({"stream": True} if stream else {})).encode()
    assert read_request("api.openai.com", path, body) == RequestFacts("text_completion", "openai", model, stream)


@pytest.mark.parametrize("path", ["/v1/organization/usage/completions", "/v1/completions/x", "/v1/xcompletions"])
def test_other_paths_are_not_completions(path: str) -> None:
    assert api_of(path) is None


def test_text_in_choice_and_delta_is_read_once() -> None:
    choices = [{"index": 0, "text": "Grüße ", "delta": {"content": "Grüße "}}, {"index": 0, "text": "✓", "delta": {}}]
    events = [f"data: {json.dumps({'choices': [choice]})}\n\n".encode() for choice in choices]
    facts = read("text/event-stream", *events)
    assert facts.messages == [{"role": "assistant", "parts": [{"type": "text", "content": "Grüße ✓"}]}]
