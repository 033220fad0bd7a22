"""Paths that count the tokens of a request: Anthropic (also on Vertex AI), OpenAI Responses, Gemini and Bedrock.

Source: the API references of `POST /v1/messages/count_tokens`, `POST /v1/responses/input_tokens`, `countTokens` and
`CountTokens`, and the SDKs. A request has the same format as a request to the model, or contains one. A count is not
usage, because the model does not run. A record therefore has the operation, the model and any error, but no tokens. The
semantic conventions define no operation for token counting.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from openclaw_egress.llm import anthropic, bedrock, gemini_generate_content, openai_responses, vertex_partners
from openclaw_egress.llm.model import Api, ResponseFacts

OPERATION = "count_tokens"


class _NoStream:
    def take(self, value: Mapping[str, Any]) -> None:
        """Ignore the event, because responses with a token count are never streams."""

    def facts(self) -> ResponseFacts:
        return ResponseFacts()


def _counting(api: Api, name: str, path: str, *examples: str, model: str | None = None) -> Api:
    """Return the registration of the paths that count the tokens of requests to an API.

    Args:
        api: the API, which also defines the format of errors.
        name: the name of the registration.
        path: a regular expression that matches the paths.
        examples: paths that it matches.
        model: a regular expression whose first group is the model in the path; None if the model is in the body.
    """

    def error_of_headers(headers: Mapping[str, str], facts: ResponseFacts) -> ResponseFacts:
        found = facts if api.with_headers is None else api.with_headers(headers, facts)
        return replace(facts, error_type=found.error_type)

    return replace(
        api,
        name=name,
        path=re.compile(path),
        examples=examples,
        members=frozenset({"error"}),
        only_members=True,
        whole=lambda value: ResponseFacts(error_type=api.whole(value).error_type),
        with_headers=error_of_headers,
        assembler=_NoStream,
        stream_default=False,
        stream_in_path=None,
        model_in_path=None if model is None else re.compile(model),
        operation=OPERATION,
        hosts={},
        other_paths=None,
    )


APIS: tuple[Api, ...] = (
    _counting(anthropic.API, "messages-count", r"/messages/count_tokens/?$", "/v1/messages/count_tokens"),
    _counting(
        vertex_partners.ANTHROPIC,
        "vertex-anthropic-count",
        r"/publishers/anthropic/models/count-tokens:rawPredict$",
        "/v1/projects/p/locations/global/publishers/anthropic/models/count-tokens:rawPredict",
    ),
    _counting(openai_responses.API, "responses-count", r"/responses/input_tokens/?$", "/v1/responses/input_tokens"),
    replace(
        _counting(
            gemini_generate_content.API,
            "gemini-count",
            r"/[^/]{1,256}:countTokens$",
            "/v1beta/models/gemini-2.5-flash:countTokens",
            "/v1/projects/p/locations/global/publishers/google/models/gemini-2.5-pro:countTokens",
            # For Cloud Code Assist the model is unknown: it is in a part of the body that the reader skips.
            "/v1internal:countTokens",
            model=r"[^/]/([^/]{1,256}):countTokens$",
        ),
        certain_at=frozenset({"gcp.gemini", "gcp.vertex_ai", "gcp.gen_ai"}),
    ),
    _counting(
        bedrock.CONVERSE,
        "bedrock-count",
        rf"/model/{bedrock.MODEL_ID}/count-tokens/?$",
        "/model/anthropic.claude-sonnet-4-5-20250929-v1:0/count-tokens",
        model=r"/model/([^/]+)/",
    ),
)
