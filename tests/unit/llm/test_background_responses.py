"""Tests of OpenAI's background responses, which the API generates after the POST and clients retrieve later."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.responses import Response

from openclaw_egress.llm import RequestFacts, ResponseFacts, Usage, read_request, response_reader
from openclaw_egress.llm.openai_responses import retrieved_id
from openclaw_egress.llm.registry import api_of

PATH = "/v1/responses/resp_1"
USAGE = {
    "input_tokens": 1000,
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens": 100,
    "output_tokens_details": {"reasoning_tokens": 60},
    "total_tokens": 1100,
}
COUNTED = Usage(1000, 100, 0, 0, 60)


def text(index: int) -> dict[str, Any]:
    content = [{"type": "output_text", "text": f"Grüße {index}", "annotations": []}]
    return {"type": "message", "id": f"m{index}", "role": "assistant", "status": "completed", "content": content}


def response(**members: Any) -> dict[str, Any]:
    known = {
        "object": "response",
        "id": "resp_1",
        "model": "gpt-5.4",
        "created_at": 1,
        "background": True,
        "status": "completed",
        "output": [text(0), text(1)],
        "usage": USAGE,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }
    Response.model_validate(known | members)
    return known | members


def read(path: str, body: object, content_type: str = "application/json") -> ResponseFacts:
    reader = response_reader("api.openai.com", path, content_type)
    reader.feed(body if isinstance(body, bytes) else json.dumps(body).encode())
    return reader.finish()


def events(*values: dict[str, Any]) -> bytes:
    return b"".join(f"event: {value['type']}\ndata: {json.dumps(value)}\n\n".encode() for value in values)


@pytest.mark.parametrize("path", [PATH, f"{PATH}/", f"{PATH}?include[]=x", f"{PATH}/cancel", "/openai/responses/r-1"])
@pytest.mark.parametrize("status", ["completed", "incomplete", "failed", "cancelled"])
def test_response_that_has_ended_has_its_usage(path: str, status: str) -> None:
    facts = read(path, response(status=status))
    assert (facts.model, facts.id, facts.finish_reasons) == ("gpt-5.4", "resp_1", (status,))
    assert (facts.usage, facts.background) == (COUNTED, True)


@pytest.mark.parametrize("status", ["queued", "in_progress"])
def test_response_in_progress_has_no_usage(status: str) -> None:
    for path in ("/v1/responses", PATH):
        facts = read(path, response(status=status, usage=None, output=[]))
        assert (facts.model, facts.id, facts.finish_reasons, facts.usage) == ("gpt-5.4", "resp_1", (), Usage())
    assert read(PATH, response(status=status)).usage == Usage()


@pytest.mark.parametrize("background", [False, None])
def test_usage_in_the_first_response_is_not_read_again(background: bool | None) -> None:
    facts = read(PATH, response(background=background))
    assert (facts.id, facts.usage, facts.background) == ("resp_1", Usage(), False)
    assert read("/v1/responses", response(background=background)).usage == COUNTED


def test_rest_of_a_stream_has_the_usage_and_the_whole_message() -> None:
    body = events(
        {"type": "response.output_item.done", "output_index": 1, "item": text(1)},
        {"type": "response.completed", "response": response()},
    )
    parts = [{"type": "text", "content": "Grüße 0"}, {"type": "text", "content": "Grüße 1"}]
    facts = read(f"{PATH}?stream=true&starting_after=4", body, "text/event-stream")
    assert (facts.usage, facts.background) == (COUNTED, True)
    assert facts.messages == [{"role": "assistant", "parts": parts, "finish_reason": "completed"}]
    body = body.replace(b'"background": true', b'"background": false')
    assert read(PATH, body, "text/event-stream").usage == Usage()


def test_object_of_another_server_is_not_a_response() -> None:
    assert read(PATH, {"id": "r", "model": "m", "status": "completed", "usage": USAGE}) == ResponseFacts()
    assert read(PATH, {"object": "response.deleted", "id": "resp_1", "deleted": True}) == ResponseFacts()
    assert read(PATH, {"error": {"type": "invalid_request_error"}}).error_type == "invalid_request_error"


def test_request_for_an_earlier_response_calls_no_model() -> None:
    assert read_request("api.openai.com", f"{PATH}/cancel", b'{"model": "m"}') == RequestFacts(provider_name="openai")


@pytest.mark.parametrize("path", [f"{PATH}/input_items", "/v1/responses/compact", "/v1/responses/input_tokens"])
def test_other_paths_below_responses_are_other_apis(path: str) -> None:
    api = api_of(path)
    assert api is None or api.name != "responses-retrieved"
    assert retrieved_id(path) is None


def test_path_names_the_response() -> None:
    assert retrieved_id("/v1/responses/resp_1") == retrieved_id("/v1/responses/resp_1/cancel") == "resp_1"
