"""Readers of requests to models and of their responses: model, usage, and the assembled message of a stream.

`request_reader` and `response_reader` take decoded bytes in chunks of any size. `read_request` takes a body at once.
`facts.py` defines the values and `names.py` the APIs and providers. Each API has a module of its own.
"""

from __future__ import annotations

from openclaw_egress.llm.anthropic import MESSAGES
from openclaw_egress.llm.model import (
    OTHER_ERROR,
    Dialect,
    RequestFacts,
    ResponseFacts,
    ResponseReader,
    Usage,
)
from openclaw_egress.llm.openai_chat import CHAT
from openclaw_egress.llm.openai_responses import RESPONSES
from openclaw_egress.llm.parsers import (
    GuessingReader,
    NothingToRead,
    PlainReader,
    RequestReader,
    StreamReader,
)
from openclaw_egress.llm.registry import Api, api_of, deployment_of, provider_of

__all__ = [
    "OTHER_ERROR",
    "RequestFacts",
    "RequestReader",
    "ResponseFacts",
    "ResponseReader",
    "Usage",
    "provider_of",
    "read_request",
    "request_reader",
    "response_reader",
]

_DIALECTS: dict[Api, Dialect] = {"messages": MESSAGES, "chat": CHAT, "responses": RESPONSES}


def request_reader(host: str, path: str) -> RequestReader:
    """Return a reader for the decoded body of a request."""
    api = api_of(path)
    provider = provider_of(host)
    if api is None:
        return RequestReader(RequestFacts(provider_name=provider))
    return RequestReader(RequestFacts(operation_name="chat", provider_name=provider, model=deployment_of(path)))


def read_request(host: str, path: str, body: bytes | None) -> RequestFacts:
    """Return the information in a decoded request body. Of a truncated body, read the complete members."""
    reader = request_reader(host, path)
    reader.feed(body or b"")
    return reader.finish()


def response_reader(host: str, path: str, content_type: str | None) -> ResponseReader:
    """Return a reader for the response on `path`. The content type or the first byte tells a stream."""
    api = api_of(path)
    if api is None:
        return NothingToRead()
    media_type = (content_type or "").partition(";")[0].strip().lower()
    if media_type == "text/event-stream":
        return StreamReader(_DIALECTS[api])
    if media_type == "application/json" or media_type.endswith("+json"):
        return PlainReader(_DIALECTS[api])
    return GuessingReader(_DIALECTS[api])
