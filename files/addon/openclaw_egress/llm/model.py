"""Types that the readers in this package return: information about requests to models and about the responses.

Counts are the provider's own values. An absent count is None. It is never 0 and never estimated.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

OTHER_ERROR = "_OTHER"
"""Error type for an error with an unknown name. The semantic conventions define this value."""

SHARED_ERROR_TYPES = frozenset(
    # Anthropic's `error.type`, then OpenAI's `error.code` and `error.type`, from their pages on errors. Then the names
    # in google.rpc.Code except OK. Then the error types of Azure, Cerebras, ChatGPT, Mistral, Moonshot AI, Perplexity
    # and vLLM.
    """api_error authentication_error billing_error conflict_error invalid_request_error not_found_error
    overloaded_error permission_error rate_limit_error request_too_large timeout_error
    account_deactivated content_filter context_length_exceeded image_parse_error insufficient_quota invalid_api_key
    invalid_image invalid_prompt model_not_found rate_limit_exceeded requests server_error server_overloaded tokens
    unsupported_parameter unsupported_value vector_store_timeout
    ABORTED ALREADY_EXISTS CANCELLED DATA_LOSS DEADLINE_EXCEEDED FAILED_PRECONDITION INTERNAL INVALID_ARGUMENT
    NOT_FOUND OUT_OF_RANGE PERMISSION_DENIED RESOURCE_EXHAUSTED UNAUTHENTICATED UNAVAILABLE UNIMPLEMENTED UNKNOWN
    DeploymentNotFound RateLimitReached request_quota_exceeded token_quota_exceeded too_many_requests_error
    wrong_api_key server_is_overloaded usage_limit_reached
    invalid_model invalid_request_file rate_limited service_tier_capacity_exceeded
    engine_overloaded_error exceeded_current_quota_error invalid_authentication_error permission_denied_error
    rate_limit_reached_error resource_not_found_error BadRequestError InternalServerError NotFoundError""".split()  # noqa: SIM905
)
"""Error types that a response of any API can name, because gateways translate between APIs and mix the names."""
EXCEPTION = ":exception"
"""Member in which `Assembler.take` receives the name of an exception in an AWS stream."""
_INT64 = 2**63


@dataclass(frozen=True)
class Usage:
    """Token counts. `input_tokens` includes cached tokens, even if the provider counts them separately."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None
    reasoning_output_tokens: int | None = None


@dataclass(frozen=True)
class Billing:
    """Values, in addition to `Usage`, on which the price of a response depends. An absent value is None."""

    stated_cost: float | None = None
    """The cost that the provider reports, in the provider's unit."""
    service_tier: str | None = None
    speed: str | None = None
    """Anthropic's inference speed: ``standard`` or ``fast``."""
    region: str | None = None
    """Region of Anthropic's inference, if the request or the workspace restricts it: ``global`` or a geography."""
    cache_write_5m_tokens: int | None = None
    """Tokens written to a cache for five minutes; `Usage.cache_write_input_tokens` includes them."""
    cache_write_1h_tokens: int | None = None
    """Tokens written to a cache for one hour; `Usage.cache_write_input_tokens` includes them."""
    input_audio_tokens: int | None = None
    """Audio tokens. `Usage.input_tokens` includes them; `Usage.output_tokens` includes ``output_audio_tokens``."""
    output_audio_tokens: int | None = None
    output_image_tokens: int | None = None
    """Image tokens; `Usage.output_tokens` includes them."""
    input_image_tokens: int | None = None
    """Image tokens; `Usage.input_tokens` includes them."""
    cache_read_audio_tokens: int | None = None
    """Audio tokens from a cache; both `input_audio_tokens` and `Usage.cache_read_input_tokens` include them."""
    no_output: bool = False
    """Whether the API has no output tokens, so that the cost does not depend on their count."""
    incomplete: bool = False
    """Whether the price depends on a value that the reader does not know, so that the cost is unknown."""
    web_searches: int | None = None
    web_fetches: int | None = None
    """Number of pages that Anthropic's server tool fetched. The fetches are free."""
    billed_input_tokens: int | None = None
    """Input tokens that Cohere bills. This and `billed_output_tokens` determine the price instead of `Usage`."""
    billed_output_tokens: int | None = None
    several_prompts: bool = False
    """Whether `Usage` is the sum of several calls to the model, so that the length of each prompt is unknown."""


@dataclass(frozen=True)
class RequestFacts:
    """Information about a request. Only `provider_name` can be set if this package does not read the API of the path.

    `service_tier`, `speed`, `region`: the requested values; see `Billing`. They determine the price if the response
    does not report the actual values.
    """

    operation_name: str | None = None
    provider_name: str | None = None
    model: str | None = None
    stream: bool | None = None
    service_tier: str | None = None
    speed: str | None = None
    region: str | None = None


@dataclass(frozen=True)
class ResponseFacts:
    """Information about a response.

    `messages`: the assembled message of a stream, in the format of `gen_ai.output.messages`. `messages_truncated`:
    whether the assembled message exceeded the limit, or parts of the stream were unreadable. `error_type`: the name of
    the provider's error if it is known, else `_OTHER`; None if there was no error.
    """

    model: str | None = None
    id: str | None = None
    finish_reasons: tuple[str, ...] = ()
    usage: Usage = field(default_factory=Usage)
    billing: Billing = field(default_factory=Billing)
    messages: list[dict[str, Any]] | None = None
    messages_truncated: bool = False
    error_type: str | None = None
    background: bool = False
    """Whether the response ran in the background. Any number of requests can return it, always with the same usage."""


class ResponseReader(Protocol):
    """Reader of one response. It accepts decoded bytes in chunks of any size, never raises, and uses bounded memory."""

    def feed(self, data: bytes) -> None:
        """Process the next bytes of the body."""

    def finish(self) -> ResponseFacts:
        """Return the information in the body, which may be incomplete. Call this once, after the last byte."""


class Assembler(Protocol):
    """Assembler of one message from a stream's events."""

    def take(self, value: Mapping[str, Any]) -> None:
        """Process the JSON object of the next event. In an AWS stream, its only member is named after the event."""

    def facts(self) -> ResponseFacts:
        """Return the information in the events so far."""


type Completion = Callable[[Mapping[str, str], ResponseFacts], ResponseFacts]
"""A function that adds information from the headers to that from the body. Header names are in lower case."""


@dataclass(frozen=True)
class Api:
    """Registration of one API: paths, request members, response parsers, hosts and error types.

    Response:

    - `path`: a pattern to search in the path without its query. `examples`: paths that it matches.
    - `members`: the small members of a plain response that `whole` reads. Only these are read if a response is too
      large to parse.
    - `whole`: reads the JSON object of a plain response.
    - `only_members`: whether `whole` reads only `members`, so that the reader can quickly skip long lists of numbers.
    - `assembler`: creates the assembler for a stream.
    - `with_headers`: adds information from the headers, whose names are in lower case. None if the reader needs no
      header.

    Request:

    - `stream_in_path`: a pattern for the paths whose responses are streams; responses on other paths are plain.
      None if the stream flag is the member `stream` of the body.
    - `stream_default`: whether the response is a stream if a complete body has no `stream`; None if unknown.
    - `model_in_path`: a pattern whose first group is the model, percent-encoded. This model takes precedence over the
      model in the body.
    - `model_member`: the top-level member of the body that names the model.

    Names:

    - `operation`: the value of `gen_ai.operation.name`; None for a path that calls no model. Requests to such a path
      are not read.
    - `hosts`: maps a host name, which includes all its subdomains, to the provider's name (`gen_ai.provider.name`).
    - `certain_at`: if other servers use the path too, the providers on whose hosts the path certainly belongs to this
      API. On other hosts, the proxy scans the bodies for credentials, as on any path, and treats a request without a
      model as a request to another API. `whole` and the assembler must ignore an object without the API's own members.
      Empty if only this API uses the path.
    - `other_paths`: matches other paths with prompts or completions, whose bodies are not read.
    - `error_types`: error types of the API in addition to `SHARED_ERROR_TYPES`.
    """

    name: str
    path: re.Pattern[str]
    examples: tuple[str, ...]
    members: frozenset[str]
    whole: Callable[[Mapping[str, Any]], ResponseFacts]
    assembler: Callable[[], Assembler]
    stream_default: bool | None
    stream_in_path: re.Pattern[str] | None = None
    model_in_path: re.Pattern[str] | None = None
    model_member: str = "model"
    operation: str | None = "chat"
    hosts: Mapping[str, str] = field(default_factory=dict)
    certain_at: frozenset[str] = frozenset()
    other_paths: re.Pattern[str] | None = None
    only_members: bool = False
    with_headers: Completion | None = None
    error_types: frozenset[str] = frozenset()


def text_of(value: object, limit: int = 256) -> str | None:
    """Return a non-empty string as valid Unicode, truncated to `limit` characters; None for any other value."""
    if not isinstance(value, str) or not value:
        return None
    return well_formed(value[:limit])


def well_formed(text: str) -> str:
    """Return valid Unicode: join surrogate pairs, and replace lone surrogates, which JSON can contain, with U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def count_of(value: object) -> int | None:
    """Return the value if it is a count that fits a signed 64-bit integer; else None."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _INT64:
        return value
    return None


def amount_of(value: object) -> float | None:
    """Return the value if it is a finite number that is not negative; else None."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _INT64:
        return float(value)
    return None


def object_of(value: object) -> Mapping[str, Any]:
    """Return the JSON object, or an empty one for any other value."""
    return value if isinstance(value, dict) else {}


def object_in(text: str | bytes | bytearray) -> Mapping[str, Any] | None:
    """Return the JSON object in the text; None for any other text."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def list_of(value: object) -> list[Any]:
    """Return the JSON array, or an empty one for any other value."""
    return value if isinstance(value, list) else []


def first_count(*values: object) -> int | None:
    """Return the first value that is a valid count (see `count_of`), or None."""
    return next((count for value in values if (count := count_of(value)) is not None), None)


def error_of(value: object, own: frozenset[str] = frozenset()) -> str | None:
    """Return the error type of an error object `{"type": …, "code": …}`: its code if known, else its type.

    In Google's errors the type is `status`. `own` contains the error types of the API.
    """
    if value is None:
        return None
    error = object_of(value)
    for word in (error.get("code"), error.get("type"), error.get("status")):
        if isinstance(word, str) and (word in SHARED_ERROR_TYPES or word in own):
            return word
    return OTHER_ERROR


def error_in(value: Mapping[str, Any]) -> str | None:
    """Return the error type of a response. Cerebras, Mistral and vLLM send an error's members at the top level."""
    if value.get("error") is not None or "choices" in value or not isinstance(value.get("message"), str):
        return error_of(value.get("error"))
    # Report no error for other objects with a message, because their meaning is unknown.
    found = error_of(value)
    return None if found == OTHER_ERROR else found
