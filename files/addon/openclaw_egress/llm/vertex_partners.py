"""Partner models on Google Vertex AI: `rawPredict` and `streamRawPredict` for Anthropic and Mistral.

Source: the pages on Claude and Mistral models of the Vertex AI documentation, and the clients `AnthropicVertex` of the
package `anthropic` and `MistralGCP` of `mistralai`. Both methods use the partner's own format: Anthropic's Messages and
Mistral's Chat Completions. The model is in the path. The formats of other partners and of Mistral's OCR are not read.
Errors have Google's format or the partner's.

From Claude Sonnet 4.5 on, regional and multi-region endpoints cost ten percent more than the global endpoint. The price
data has only the prices of the global endpoint, so the cost of a call to another endpoint is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from openclaw_egress.llm import anthropic, openai_chat
from openclaw_egress.llm.model import Api, ResponseFacts, error_of

_METHOD = ":(?:rawPredict|streamRawPredict)$"


class _Assembler:
    """Assembler of a stream in a partner's format. An error in the stream can also have Google's format."""

    def __init__(self, api: Api) -> None:
        self._inner = api.assembler()
        self._error: str | None = None

    def take(self, value: Mapping[str, Any]) -> None:
        self._error = error_of(value.get("error")) or self._error
        self._inner.take(value)

    def facts(self) -> ResponseFacts:
        facts = self._inner.facts()
        return replace(facts, error_type=self._error or facts.error_type)


def _without_price(headers: Mapping[str, str], facts: ResponseFacts) -> ResponseFacts:
    return replace(facts, billing=replace(facts.billing, incomplete=True))


def _partner(api: Api, name: str, path: str, *examples: str) -> Api:
    """Return the registration of a partner's API on the paths of Vertex AI."""
    return replace(
        api,
        name=name,
        path=re.compile(path + _METHOD),
        examples=examples,
        assembler=lambda: _Assembler(api),
        stream_default=None,
        stream_in_path=re.compile(r":streamRawPredict$"),
        model_in_path=re.compile(r"/([^/]{1,256})" + _METHOD),
        hosts={},
        other_paths=None,
    )


# Exclude `count-tokens`: to count tokens, the SDK sends this instead of a model name.
_CLAUDE = r"/publishers/anthropic/models/(?!count-tokens:)[^/]{1,256}"

ANTHROPIC = _partner(
    anthropic.API,
    "vertex-anthropic",
    rf"/locations/global{_CLAUDE}",
    "/v1/projects/p/locations/global/publishers/anthropic/models/claude-sonnet-4-5@20250929:rawPredict",
    "/v1/projects/p/locations/global/publishers/anthropic/models/claude-sonnet-4-5%4020250929:streamRawPredict",
)
ANTHROPIC_REGIONAL = replace(
    _partner(
        anthropic.API,
        "vertex-anthropic-regional",
        rf"(?<!/locations/global){_CLAUDE}",
        "/v1/projects/p/locations/europe-west1/publishers/anthropic/models/claude-opus-4-1@20250805:streamRawPredict",
        "/v1/projects/p/locations/us/publishers/anthropic/models/claude-haiku-4-5@20251001:rawPredict",
    ),
    with_headers=_without_price,
)
MISTRAL = _partner(
    openai_chat.API,
    "vertex-mistral",
    r"/publishers/mistralai/models/(?![^/]*ocr)[^/]{1,256}",
    "/v1/projects/p/locations/europe-west4/publishers/mistralai/models/mistral-medium-3:rawPredict",
    "/v1/projects/p/locations/us-central1/publishers/mistralai/models/codestral-2:streamRawPredict",
)
