"""Text generation of IBM watsonx.ai, by a model or a deployment, plain and streamed.

Source: https://cloud.ibm.com/apidocs/watsonx-ai#text-generation, the types `TextGenResponse` and `TextGenResult` of
IBM/watsonx-ai-node-sdk, and the package `ibm_watsonx_ai`. The streams in the tests of IBM/watsonx-ai-java-sdk show what
the reference does not say: the first event has the input count, and later events have 0. The output count is
cumulative, although that SDK adds up the counts of all events. The path shows whether the response is a stream. A
response has no id, and its counts include neither cached tokens nor reasoning.

A request names its model in `model_id`. A request to a deployment names none; the response does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from openclaw_egress.llm.message_builder import Parts
from openclaw_egress.llm.model import (
    OTHER_ERROR,
    Api,
    ResponseFacts,
    Usage,
    count_of,
    error_of,
    list_of,
    object_of,
    text_of,
)

# The codes of this API in `WatsonxError` of IBM/watsonx-ai-java-sdk, and one more code from the tests of that SDK.
_ERRORS = frozenset(
    """authentication_token_expired authentication_token_not_valid authorization_rejected invalid_input_argument
    invalid_request_entity json_type_error json_validation_error model_no_support_for_function model_not_supported
    token_quota_reached user_authorization_failed""".split()  # noqa: SIM905
)


def _result(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the only result; empty if there are several, because the meaning of their counts is unknown."""
    results = list_of(value.get("results"))
    return object_of(results[0]) if len(results) == 1 else {}


def _whole(value: Mapping[str, Any]) -> ResponseFacts:
    result, errors = _result(value), list_of(value.get("errors"))
    reason = text_of(result.get("stop_reason"))
    # The reference asks clients to compare the reason case-insensitively.
    kind = reason.lower() if reason else None
    failed = OTHER_ERROR if kind == "error" else None
    return ResponseFacts(
        model=text_of(value.get("model_id")),
        finish_reasons=(reason,) if reason and kind != "not_finished" else (),
        usage=Usage(
            input_tokens=count_of(result.get("input_token_count")),
            output_tokens=count_of(result.get("generated_token_count")),
        ),
        error_type=error_of(object_of(errors[0]), _ERRORS) if errors else failed,
    )


def _larger(one: int | None, other: int | None) -> int | None:
    return max((count for count in (one, other) if count is not None), default=None)


class _Assembler:
    def __init__(self) -> None:
        self._known = ResponseFacts()
        self._parts = Parts()

    def take(self, value: Mapping[str, Any]) -> None:
        self._parts.append(("text",), "text", _result(value).get("generated_text"))
        known, found = self._known, _whole(value)
        self._known = ResponseFacts(
            model=found.model or known.model,
            finish_reasons=found.finish_reasons or known.finish_reasons,
            usage=Usage(
                input_tokens=_larger(known.usage.input_tokens, found.usage.input_tokens),
                output_tokens=_larger(known.usage.output_tokens, found.usage.output_tokens),
            ),
            error_type=found.error_type or known.error_type,
        )

    def facts(self) -> ResponseFacts:
        return self._parts.completed(self._known, None)


API = Api(
    name="watsonx-generation",
    path=re.compile(r"/ml/v1/(?:deployments/[^/]{1,256}/)?text/generation(?:_stream)?/?$"),
    examples=(
        "/ml/v1/text/generation",
        "/ml/v1/text/generation_stream",
        "/ml/v1/deployments/my-deployment/text/generation",
    ),
    members=frozenset({"model_id", "errors"}),
    whole=_whole,
    assembler=_Assembler,
    stream_default=None,
    stream_in_path=re.compile(r"_stream/?$"),
    model_member="model_id",
    operation="text_completion",
    # The regions are subdomains. Mumbai and the government region have separate hosts (IBM/watsonx-ai-node-sdk).
    hosts={
        "ml.cloud.ibm.com": "ibm.watsonx.ai",
        "wxai.ibm.com": "ibm.watsonx.ai",
        "wxai.ibmforusgov.com": "ibm.watsonx.ai",
    },
    error_types=_ERRORS,
)
