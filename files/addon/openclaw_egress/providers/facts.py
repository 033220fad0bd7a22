"""What the readers find in a provider's request and response; every field is ``None`` where it is not known.

Unknown is never 0 and never an estimate. Names follow the GenAI semantic conventions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts as the provider bills them. ``input_tokens`` is all input, cached included."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None
    reasoning_output_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """What a request says of itself."""

    operation_name: str | None = None
    provider_name: str | None = None
    model: str | None = None
    stream: bool | None = None


@dataclass(frozen=True, slots=True)
class ResponseFacts:
    """What a response says; ``messages`` is the folded final message of a stream (``gen_ai.output.messages``)."""

    model: str | None = None
    id: str | None = None
    finish_reasons: tuple[str, ...] = ()
    usage: Usage = field(default_factory=Usage)
    messages: list[dict[str, Any]] | None = None
    error_type: str | None = None
