"""Responses of APIs that the fake provider does not serve, in the format of API references and of the SDKs' types."""

from __future__ import annotations

import json
from typing import Any

from tests.support.llm_providers import Request, gemini_response, openai_response
from tests.unit.provider_dialects import CALL, TEXTS, THOUGHTS
from tests.unit.provider_recording import Reply

Json = dict[str, Any]
NAME, ARGUMENTS = CALL


def _json(value: object, status: int = 200) -> Reply:
    return Reply(status, "application/json", [json.dumps(value, ensure_ascii=False).encode()])


def _named(events: list[Json], member: str = "type") -> list[bytes]:
    lines = [(event[member], json.dumps(event, ensure_ascii=False)) for event in events]
    return [f"event: {name}\ndata: {text}\n\n".encode() for name, text in lines]


def cohere_v1(case: str) -> Reply:
    """Return a response of Cohere's Chat API, version 1 (docs.cohere.com/v1/reference/chat)."""
    if case == "error":
        return _json({"message": "refused"}, 400)
    meta = {"tokens": {"input_tokens": 71, "output_tokens": 10}, "cached_tokens": 64}
    whole: Json = {"response_id": "r1", "generation_id": "g1", "finish_reason": "COMPLETE", "meta": meta}
    if case == "plain":
        return _json(whole | {"text": "".join(TEXTS)})
    events: list[Json] = [{"event_type": "stream-start", "generation_id": "g1"}]
    if case == "tools":
        call = {"name": NAME, "parameters": json.loads(ARGUMENTS)}
        events.append({"event_type": "tool-calls-generation", "tool_calls": [call]})
        whole |= {"text": "", "tool_calls": [call]}
    else:
        events += [{"event_type": "text-generation", "text": text} for text in TEXTS * (4 if case == "aborted" else 1)]
        whole |= {"text": "".join(TEXTS)}
    end = {"event_type": "stream-end", "finish_reason": "COMPLETE", "response": whole}
    lines = [event | {"is_finished": False} for event in events] + [end | {"is_finished": True}]
    pieces = [json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines]
    return Reply(200, "application/stream+json", pieces, case == "aborted")


def interactions(case: str) -> Reply:
    """Return a response of Gemini's Interactions API (ai.google.dev/api/interactions-api)."""
    if case == "error":
        return _json({"error": {"code": 400, "message": "refused", "status": "INVALID_ARGUMENT"}}, 400)
    head = {"id": "v1_Ab", "object": "interaction", "model": "m", "created": "2026-09-21T13:33:20Z"}
    head |= {"updated": "2026-09-21T13:33:20Z"}
    counts = {"total_input_tokens": 100, "total_cached_tokens": 40, "total_output_tokens": 20}
    usage = counts | {"total_tool_use_tokens": 4, "total_thought_tokens": 40, "total_tokens": 164}
    done: Json = head | {"status": "completed", "usage": usage}
    if case == "plain":
        said = {"type": "model_output", "content": [{"type": "text", "text": "".join(TEXTS)}]}
        return _json(done | {"steps": [said]})
    steps: list[tuple[Json, list[Json]]] = []
    if case == "reasoning":
        thoughts: list[Json] = [{"type": "text", "text": text} for text in THOUGHTS]
        steps.append(({"type": "thought"}, [{"type": "thought_summary", "content": one} for one in thoughts]))
    if case == "tools":
        pieces: list[Json] = [{"type": "arguments_delta", "arguments": one} for one in (ARGUMENTS[:7], ARGUMENTS[7:])]
        steps.append(({"type": "function_call", "id": "c1", "name": NAME, "arguments": {}}, pieces))
    else:
        texts = TEXTS * (4 if case == "aborted" else 1)
        steps.append(({"type": "model_output"}, [{"type": "text", "text": text} for text in texts]))
    events: list[Json] = [
        {"event_type": "interaction.created", "interaction": head | {"status": "in_progress", "steps": []}}
    ]
    for index, (step, deltas) in enumerate(steps):
        events.append({"event_type": "step.start", "index": index, "step": step})
        events += [{"event_type": "step.delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"event_type": "step.stop", "index": index})
    events.append({"event_type": "interaction.completed", "interaction": done})
    return Reply(200, "text/event-stream", _named(events, "event_type"), case == "aborted")


def transcription(case: str) -> Reply:
    """Return a response of OpenAI's transcriptions API, in the format of the SDK's types."""
    if case == "error":
        return _json({"error": {"message": "refused", "type": "invalid_request_error", "code": None}}, 400)
    usage: Json = {"type": "tokens", "input_tokens": 14, "output_tokens": 45, "total_tokens": 59}
    usage["input_token_details"] = {"text_tokens": 4, "audio_tokens": 10}
    if case == "plain":
        return _json({"text": "".join(TEXTS), "usage": usage})
    events: list[Json] = [{"type": "transcript.text.delta", "delta": text} for text in TEXTS * 4]
    events.append({"type": "transcript.text.done", "text": "".join(TEXTS * 4), "usage": usage})
    return Reply(200, "text/event-stream", _named(events), case == "aborted")


def speech(case: str) -> Reply:
    """Return a response of OpenAI's speech API."""
    return transcription(case) if case == "error" else Reply(200, "audio/mpeg", [b"ID3", b"\0" * 64])


def batch(case: str) -> Reply:
    """Return Anthropic's response to the creation of a batch, in the format of the SDK's type `MessageBatch`."""
    if case == "error":
        return _json({"type": "error", "error": {"type": "invalid_request_error", "message": "refused"}}, 400)
    counts = dict.fromkeys(("canceled", "errored", "expired", "succeeded"), 0) | {"processing": 1}
    value: Json = {"id": "msgbatch_1", "type": "message_batch", "processing_status": "in_progress"}
    value |= {"request_counts": counts, "created_at": "2026-09-21T13:33:20Z", "expires_at": "2026-09-22T13:33:20Z"}
    return _json(value)


def responses(case: str) -> Reply:
    """Return a response of OpenAI's Responses API. Other providers and WebSocket messages use the same format."""
    if case == "error":
        return _json([{"error": {"code": 400, "message": "refused", "status": "INVALID_ARGUMENT"}}], 400)
    body: Json = {"model": "tools" if case == "tools" else "m", "input": "x", "stream": case != "plain"}
    text = json.dumps(body).encode()
    reply = openai_response(Request("POST", "localhost", "/v1/responses", {}, {}, text, body))
    return Reply(200, reply.content_type, reply.pieces, case == "aborted")


def codex(case: str) -> Reply:
    """Return a response that ChatGPT's backend sends to Codex (github.com/openai/codex, codex-rs/codex-api)."""
    if case == "error":
        return _json({"error": {"type": "usage_limit_reached", "plan_type": "plus", "resets_in_seconds": 60}}, 429)
    return responses(case)


def code_assist(case: str) -> Reply:
    """Return a response of Cloud Code Assist (github.com/google-gemini/gemini-cli, packages/core/src/code_assist)."""
    if case == "error":
        return _json([{"error": {"code": 429, "message": "refused", "status": "RESOURCE_EXHAUSTED"}}], 429)
    body: Json = {"contents": [{"parts": [{"text": "x"}]}]}
    if case == "reasoning":
        body |= {"generationConfig": {"thinkingConfig": {"includeThoughts": True}}}
    request = Request("POST", "localhost", "/", {"alt": "sse"}, {}, json.dumps(body).encode(), body)
    reply = gemini_response(request, "tools" if case == "tools" else "m", streamed=case != "plain")
    if case == "plain":
        return _json({"response": json.loads(b"".join(reply.pieces)), "traceId": "t-1"})
    values = [json.loads(piece.partition(b"data: ")[2]) for piece in reply.pieces]
    pieces = [f"data: {json.dumps({'response': value, 'traceId': 't-1'})}\n\n".encode() for value in values]
    return Reply(200, "text/event-stream", pieces, case == "aborted")


def response_messages(case: str) -> list[Json]:
    """Return the WebSocket messages of OpenAI's Responses API (OpenAI's guide "WebSocket mode")."""
    if case == "error":
        error = {"type": "invalid_request_error", "code": "model_not_found", "message": "refused", "param": None}
        return [{"type": "error", "status": 400, "error": error}]
    return [json.loads(piece.partition(b"data: ")[2]) for piece in responses(case).pieces]


def realtime_messages(case: str) -> list[Json]:
    """Return the messages of a Realtime session, in the format of the SDK's type `RealtimeServerEvent`."""
    session = {"type": "realtime", "id": "sess_1", "object": "realtime.session", "model": "m"}
    events: list[Json] = [{"type": "session.created", "session": session}]
    if case == "error":
        error = {"type": "invalid_request_error", "code": "rate_limit_exceeded", "message": "refused"}
        events.append({"type": "error", "error": error})
    else:
        events += _realtime_response(case)
    return [event | {"event_id": f"event_{number}"} for number, event in enumerate(events)]


def _realtime_response(case: str) -> list[Json]:
    place = {"response_id": "resp_1", "item_id": "item_1", "output_index": 0}
    if case == "tools":
        item: Json = {"type": "function_call", "call_id": "call_1", "name": NAME, "arguments": ARGUMENTS}
        kind, pieces = "response.function_call_arguments.delta", [ARGUMENTS[:7], ARGUMENTS[7:]]
    else:
        item = {"type": "message", "role": "assistant"}
        item["content"] = [{"type": "output_audio", "transcript": "".join(TEXTS)}]
        kind, pieces = "response.output_audio_transcript.delta", list(TEXTS)
    added = {"id": "item_1", **item} | ({"arguments": ""} if case == "tools" else {"content": []})
    usage: Json = {"input_tokens": 125, "output_tokens": 48, "total_tokens": 173}
    usage["input_token_details"] = {"cached_tokens": 98, "text_tokens": 20, "audio_tokens": 105}
    usage["output_token_details"] = {"text_tokens": 10, "audio_tokens": 38}
    head = {"id": "resp_1", "object": "realtime.response", "conversation_id": "conv_1"}
    done = head | {"status": "completed", "usage": usage, "output": [item | {"id": "item_1", "status": "completed"}]}
    return [
        {"type": "response.created", "response": head | {"status": "in_progress", "output": []}},
        {"type": "response.output_item.added", "item": added, **place},
        *({"type": kind, "delta": piece, "content_index": 0, **place} for piece in pieces),
        {"type": "response.done", "response": done},
    ]
