"""Text Generation Inference (TGI): its own `/generate` and `/generate_stream`.

Source: https://huggingface.github.io/text-generation-inference, `router/src` of huggingface/text-generation-inference,
and the types of the package `huggingface_hub`. The path shows whether the response is a stream. Neither a request nor a
response names the model, because a server has only one. A plain response has its counts in headers, and also in
`details` if the request sets `parameters.details`. A stream has its counts only in the last event, and only with that
parameter. The input includes cached tokens, which TGI does not count separately. With several sequences (`best_of`),
the output count includes only the tokens of the returned sequence. An error in a stream is an event in a response with
status 200.

The reader assembles the text of a stream from the tokens, without special tokens, because `generated_text` in the last
event can begin with the prompt. Other servers use `/generate` for other purposes, and other model servers use
`/generate_stream` with other formats. Therefore the reader accepts an object only if it has `token`, the counts in
`details`, or `error_type`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from openclaw_egress.llm.message_builder import Parts
from openclaw_egress.llm.model import Api, ResponseFacts, Usage, count_of, error_of, object_of, text_of

_ERRORS = frozenset(
    """generation incomplete_generation missing_template_variable overloaded template_error tool_error
    validation""".split()  # noqa: SIM905
)
_COUNT = re.compile(r"[0-9]{1,18}")


def _whole(value: Mapping[str, Any]) -> ResponseFacts:
    details = object_of(value.get("details"))
    output = count_of(details.get("generated_tokens"))
    reason = text_of(details.get("finish_reason")) if output is not None else None
    return ResponseFacts(
        finish_reasons=(reason,) if reason else (),
        usage=Usage(input_tokens=count_of(details.get("input_length")), output_tokens=output),
        error_type=error_of({"type": value["error_type"]}, _ERRORS) if text_of(value.get("error_type")) else None,
    )


def _with_headers(headers: Mapping[str, str], facts: ResponseFacts) -> ResponseFacts:
    """Set the token counts in ``facts`` from the headers of a plain response, where the body has none."""
    given, made = (_count(headers.get(f"x-{kind}-tokens", "")) for kind in ("prompt", "generated"))
    usage = facts.usage
    return replace(
        facts,
        usage=replace(
            usage,
            input_tokens=given if usage.input_tokens is None else usage.input_tokens,
            output_tokens=made if usage.output_tokens is None else usage.output_tokens,
        ),
    )


def _count(text: str) -> int | None:
    return int(text) if _COUNT.fullmatch(text) else None


class _Assembler:
    def __init__(self) -> None:
        self._last = ResponseFacts()
        self._error: str | None = None
        self._parts = Parts()

    def take(self, value: Mapping[str, Any]) -> None:
        token = object_of(value.get("token"))
        if token.get("special") is not True:
            self._parts.append(("text",), "text", token.get("text"))
        found = _whole(value)
        self._error = found.error_type or self._error
        if found.usage != Usage():
            self._last = found

    def facts(self) -> ResponseFacts:
        return self._parts.completed(self._last, self._error)


GENERATE_STREAM = Api(
    name="tgi-generate-stream",
    path=re.compile(r"/generate_stream/?$"),
    examples=("/generate_stream",),
    members=frozenset({"details", "error_type"}),
    whole=_whole,
    assembler=_Assembler,
    with_headers=_with_headers,
    stream_default=None,
    stream_in_path=re.compile(r"_stream/?$"),
    operation="text_completion",
    hosts={"endpoints.huggingface.cloud": "hugging_face"},
    error_types=_ERRORS,
)
GENERATE = replace(
    GENERATE_STREAM,
    name="tgi-generate",
    # Do not match Ollama's `/api/generate`, or Cohere's former `/v1/generate` and `/v2/generate`.
    path=re.compile(r"(?<!/api)(?<!/v[12])/generate/?$"),
    examples=("/generate", "/generate/"),
    hosts={},
    certain_at=frozenset({"hugging_face"}),
)
