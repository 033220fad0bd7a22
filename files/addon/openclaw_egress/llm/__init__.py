"""Readers of requests to models and of their responses: model, usage, and the assembled message of a stream.

`request_reader` and `response_reader` take decoded bytes in chunks of any size. `read_request` takes a body at once.
`model.py` defines the values, `registry.py` lists the APIs and providers. Each API has its own module
(docs/add-a-provider.md).
"""

from __future__ import annotations

from openclaw_egress.llm.model import (
    OTHER_ERROR,
    RequestFacts,
    ResponseFacts,
    ResponseReader,
    Usage,
    text_of,
)
from openclaw_egress.llm.parsers import (
    GuessingReader,
    NothingToRead,
    PlainReader,
    RequestReader,
    StreamReader,
)
from openclaw_egress.llm.registry import api_of, bare_path, provider_of

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


def request_reader(host: str, path: str) -> RequestReader:
    """Return a reader for the decoded body of a request."""
    api = api_of(path)
    provider = provider_of(host)
    if api is None:
        return RequestReader(RequestFacts(provider_name=provider))
    bare = bare_path(path)
    model = api.model_in_path.search(bare) if api.model_in_path is not None else None
    stream = api.stream_in_path.search(bare) is not None if api.stream_in_path is not None else None
    known = RequestFacts("chat", provider, text_of(model.group(1)) if model else None, stream)
    return RequestReader(known, api.stream_default)


def read_request(host: str, path: str, body: bytes | None) -> RequestFacts:
    """Return the information in a decoded request body. In a truncated body, read only the complete members."""
    reader = request_reader(host, path)
    reader.feed(body or b"")
    return reader.finish()


def response_reader(host: str, path: str, content_type: str | None) -> ResponseReader:
    """Return a reader for the response to a request for `path`.

    The content type or the first byte shows whether it is a stream.
    """
    api = api_of(path)
    if api is None:
        return NothingToRead()
    media_type = (content_type or "").partition(";")[0].strip().lower()
    if media_type == "text/event-stream":
        return StreamReader(api)
    if media_type == "application/json" or media_type.endswith("+json"):
        return PlainReader(api)
    return GuessingReader(api)
