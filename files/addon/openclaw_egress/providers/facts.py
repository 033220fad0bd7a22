"""What is known of an exchange with a model: the values that the readers of this package give.

Counts are as the provider stated them and absent (None) where it stated none: never 0 for unknown, never estimated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

OTHER_ERROR = "_OTHER"
"""An error that the provider named with a word we do not know; the value that semantic conventions have for it."""

_ERRORS = frozenset(
    # Anthropic's `error.type`, then OpenAI's `error.code` and `error.type`: from their pages on errors.
    """api_error authentication_error billing_error invalid_request_error not_found_error overloaded_error
    permission_error rate_limit_error request_too_large timeout_error
    account_deactivated context_length_exceeded image_parse_error insufficient_quota invalid_api_key invalid_image
    invalid_prompt model_not_found rate_limit_exceeded requests server_error server_overloaded tokens
    unsupported_parameter unsupported_value vector_store_timeout""".split()  # noqa: SIM905
)
_INT64 = 2**63


@dataclass(frozen=True)
class Usage:
    """Tokens. `input_tokens` is all input, what a cache gave or took included, whatever the provider's own way."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None
    reasoning_output_tokens: int | None = None


@dataclass(frozen=True)
class RequestFacts:
    """Of the request: all None where the path is no API that we read."""

    operation_name: str | None = None
    provider_name: str | None = None
    model: str | None = None
    stream: bool | None = None


@dataclass(frozen=True)
class ResponseFacts:
    """Of the response. `messages`: the folded answer of a stream, in the shape of `gen_ai.output.messages`.

    `messages_truncated`: the folded answer was longer than the reader's limit, or parts of the stream could not be
    read. `error_type`: the provider's own word, if it is a known one, else `_OTHER`; None where no error was told.
    """

    model: str | None = None
    id: str | None = None
    finish_reasons: tuple[str, ...] = ()
    usage: Usage = field(default_factory=Usage)
    messages: list[dict[str, Any]] | None = None
    messages_truncated: bool = False
    error_type: str | None = None


class ResponseReader(Protocol):
    """Reads one response. Fed with decoded bytes in any cut; never raises; bounded in memory."""

    def feed(self, data: bytes) -> None:
        """The next bytes of the body."""

    def finish(self) -> ResponseFacts:
        """The body is over, or broke off: what was learnt."""


class Fold(Protocol):
    """Makes one answer of a stream's events."""

    def take(self, value: Mapping[str, Any]) -> None:
        """The next event's JSON object."""

    def facts(self) -> ResponseFacts:
        """What the events so far say."""


@dataclass(frozen=True)
class Dialect:
    """One API's way to say things.

    `members`: the members of a plain response's object that `whole` reads and that are small, for those that are too
    large to be read as a whole. `whole`: facts of a plain response's object. `fold`: a new fold for a stream.
    """

    members: frozenset[str]
    whole: Callable[[Mapping[str, Any]], ResponseFacts]
    fold: Callable[[], Fold]


def text_of(value: object, limit: int = 256) -> str | None:
    """A string that is not empty, as valid Unicode, cut at `limit` characters; else None."""
    if not isinstance(value, str) or not value:
        return None
    return well_formed(value[:limit])


def well_formed(text: str) -> str:
    """JSON can spell half a surrogate pair, which is no text: two halves are joined, a lone one becomes U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def count_of(value: object) -> int | None:
    """A count that fits the store's integers; else None."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _INT64:
        return value
    return None


def object_of(value: object) -> Mapping[str, Any]:
    """The JSON object, or an empty one for whatever else stands there."""
    return value if isinstance(value, dict) else {}


def list_of(value: object) -> list[Any]:
    """The JSON array, or an empty one for whatever else stands there."""
    return value if isinstance(value, list) else []


def first_count(*values: object) -> int | None:
    """The first of them that is a count."""
    return next((count for value in values if (count := count_of(value)) is not None), None)


def error_of(value: object) -> str | None:
    """The word for an error object `{"type": …, "code": …}`: its code if that is a known word, else its type."""
    if value is None:
        return None
    error = object_of(value)
    for word in (error.get("code"), error.get("type")):
        if isinstance(word, str) and word in _ERRORS:
            return word
    return OTHER_ERROR
