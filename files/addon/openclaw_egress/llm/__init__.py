"""Readers of model API requests and responses. They extract the model, the usage and the message of a stream.

`request_reader` and `response_reader` take decoded bytes in chunks of any size. `read_request` takes a complete body.
`model.py` defines the returned types, and `registry.py` lists the APIs and providers. Each API has its own module
(docs/add-a-provider.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote

from openclaw_egress.llm.model import (
    OTHER_ERROR,
    Api,
    RequestFacts,
    ResponseFacts,
    ResponseReader,
    Usage,
    text_of,
)
from openclaw_egress.llm.parsers import (
    AwsStreamReader,
    GuessingReader,
    JsonStreamReader,
    NothingToRead,
    ReaderWithHeaders,
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
    "message_reader",
    "provider_of",
    "read_request",
    "request_reader",
    "response_reader",
]

_JSON_LINES = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"})


def request_reader(host: str, path: str) -> RequestReader:
    """Return a reader for the decoded body of a request."""
    api = api_of(path)
    provider = provider_of(host)
    if api is None or api.operation is None:
        return RequestReader(RequestFacts(provider_name=provider))
    bare = bare_path(path)
    model = api.model_in_path.search(bare) if api.model_in_path is not None else None
    stream = api.stream_in_path.search(bare) is not None if api.stream_in_path is not None else None
    known = RequestFacts(api.operation, provider, text_of(unquote(model.group(1))) if model else None, stream)
    ambiguous = bool(api.certain_at) and provider not in api.certain_at
    return RequestReader(known, api.stream_default, needs_model=ambiguous, model_member=api.model_member)


def read_request(host: str, path: str, body: bytes | None) -> RequestFacts:
    """Return the model and the options in a decoded request body. Ignore incomplete members of a truncated body."""
    reader = request_reader(host, path)
    reader.feed(body or b"")
    return reader.finish()


def response_reader(
    host: str, path: str, content_type: str | None, headers: Mapping[str, str] | None = None
) -> ResponseReader:
    """Return a reader for the response to a request for `path`. The names of `headers` are in lower case.

    The content type or the first byte of the response shows whether it is a stream, and in which format.
    """
    api = api_of(path)
    if api is None:
        return NothingToRead()
    reader = _body_reader(api, content_type)
    return reader if api.with_headers is None else ReaderWithHeaders(api.with_headers, headers or {}, reader)


def _body_reader(api: Api, content_type: str | None) -> ResponseReader:
    media_type = (content_type or "").partition(";")[0].strip().lower()
    if media_type == "text/event-stream":
        return StreamReader(api)
    if media_type.startswith(("audio/", "image/", "video/")):
        return NothingToRead()
    if media_type == "application/vnd.amazon.eventstream":
        return AwsStreamReader(api)
    if media_type in _JSON_LINES:
        return JsonStreamReader(api, lines=True)
    return GuessingReader(api, plain=media_type == "application/json" or media_type.endswith("+json"))


def message_reader(path: str) -> ResponseReader | None:
    """Return a reader for the server's messages on a WebSocket, one JSON object per line; None for an unknown path."""
    api = api_of(path)
    return None if api is None else JsonStreamReader(api, lines=True)
