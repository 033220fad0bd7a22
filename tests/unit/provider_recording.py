"""Recordings of calls from the official SDKs to the fake provider, with the bytes of each response as received."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anthropic
import botocore.config
import botocore.httpsession
import botocore.session
import cohere
import groq
import httpx
import httpx2
import mistralai.client
import mistralai.gcp.client
import ollama
import openai
from google import genai

from openclaw_egress.llm import RequestFacts, ResponseFacts, read_request, response_reader
from openclaw_egress.wire.content_encoding import BodyDecoder
from tests.support.llm_providers import LLMProviders
from tests.support.websocket_provider import Socket, WebSocketProvider


@dataclass
class Recorded:
    """One recorded exchange. The chunks of the response body are still content-encoded."""

    path: str
    request: bytes
    content_type: str | None
    content_encoding: str | None
    headers: dict[str, str]
    chunks: list[bytes] = field(default_factory=list)
    aborted: bool = False

    def decoded(self) -> bytes:
        decoder = BodyDecoder(self.content_encoding)
        body = b"".join(decoder.feed(chunk) for chunk in self.chunks) + decoder.finish()
        assert decoder.error is None
        return body

    def response_facts(self, host: str) -> ResponseFacts:
        reader = response_reader(host, self.path, self.content_type, self.headers)
        decoder = BodyDecoder(self.content_encoding)
        for chunk in self.chunks:
            reader.feed(decoder.feed(chunk))
        reader.feed(decoder.finish())
        return reader.finish()

    def request_facts(self, host: str) -> RequestFacts:
        return read_request(host, self.path, self.request)


@dataclass(frozen=True)
class Reply:
    """A response that a test defines. If ``cut`` is true, the connection closes in the middle of the body."""

    status: int
    content_type: str
    pieces: list[bytes]
    cut: bool = False

    def sent(self) -> list[bytes]:
        if not self.cut:
            return self.pieces
        body = b"".join(self.pieces)
        return [body[at : at + 64] for at in range(0, len(body) // 2, 64)]


def _replay(http: Any, reply: Reply) -> Any:
    """Return a transport of `httpx` or `httpx2` that gives the same reply to every request."""

    class Body(http.SyncByteStream):  # type: ignore[misc]
        def __iter__(self) -> Iterator[bytes]:
            yield from reply.sent()
            if reply.cut:
                raise http.RemoteProtocolError("peer closed connection without sending complete message body")

    def respond(_: Any) -> Any:
        return http.Response(reply.status, headers={"content-type": reply.content_type}, stream=Body())

    return http.MockTransport(respond)


def _transport(http: Any, inner: Any, exchanges: list[Recorded]) -> Any:
    """Return a transport of `httpx` or `httpx2` that sends requests through `inner` and records each exchange."""

    class Tap(http.SyncByteStream):  # type: ignore[misc]
        def __init__(self, stream: Any, one: Recorded) -> None:
            self._stream = stream
            self._one = one

        def __iter__(self) -> Iterator[bytes]:
            self._one.aborted = True
            for chunk in self._stream:
                self._one.chunks.append(bytes(chunk))
                yield chunk
            self._one.aborted = False

        def close(self) -> None:
            self._stream.close()

    class Transport(http.BaseTransport):  # type: ignore[misc]
        def __init__(self) -> None:
            self._inner = inner

        def handle_request(self, request: Any) -> Any:
            response = self._inner.handle_request(request)
            headers = response.headers
            one = Recorded(
                request.url.raw_path.decode(),
                request.read(),
                headers.get("content-type"),
                headers.get("content-encoding"),
                {name.lower(): value for name, value in headers.items()},
            )
            exchanges.append(one)
            tap = Tap(response.stream, one)
            return http.Response(response.status_code, headers=headers, stream=tap, extensions=response.extensions)

        def close(self) -> None:
            self._inner.close()

    return Transport()


class _BotocoreTap:
    """A handler for `botocore` that sends a request, and records the exchange while `botocore` reads it."""

    def __init__(self, ca_file: str, exchanges: list[Recorded]) -> None:
        self._inner = botocore.httpsession.URLLib3Session(verify=ca_file)
        self._exchanges = exchanges
        self.extra: dict[str, str] = {}
        """Headers to add to each request."""

    def __call__(self, request: Any, **_: Any) -> Any:
        request.headers.update(self.extra)
        response = self._inner.send(request)
        headers = {name.lower(): value for name, value in response.headers.items()}
        path = request.url.partition("//")[2].partition("/")[2]
        one = Recorded(f"/{path}", request.body or b"", headers.get("content-type"), None, headers)
        self._exchanges.append(one)
        if request.stream_output:
            response.raw = _BotocoreBody(response.raw, one.chunks)
        else:
            one.chunks.append(response.content)
        return response

    def close(self) -> None:
        self._inner.close()


class _BotocoreBody:
    def __init__(self, raw: Any, kept: list[bytes]) -> None:
        self._raw = raw
        self._kept = kept

    def stream(self, *_: Any, **__: Any) -> Iterator[bytes]:
        # Read small pieces, to record the bytes that arrive before an abort.
        try:
            while piece := self._raw.read1(64):
                self._kept.append(piece)
                yield piece
        finally:
            self.close()

    def read(self, amount: int | None = None) -> bytes:
        piece: bytes = self._raw.read(amount)
        self._kept.append(piece)
        return piece

    def close(self) -> None:
        self._raw.close()


class Clients:
    """Clients of the SDKs, all connected to one fake provider. `last` is the latest recorded exchange."""

    def __init__(self, providers: LLMProviders) -> None:
        self.providers = providers
        self.exchanges: list[Recorded] = []
        context = ssl.create_default_context(cafile=str(providers.ca_file))
        base = self._base = f"https://localhost:{providers.port}"
        self._http = httpx2.Client(transport=_transport(httpx2, httpx2.HTTPTransport(verify=context), self.exchanges))
        self._http1 = httpx.Client(transport=_transport(httpx, httpx.HTTPTransport(verify=context), self.exchanges))
        self.anthropic = anthropic.Anthropic(
            api_key="sk-ant-test", base_url=base, max_retries=0, http_client=self._http
        )
        self.openai = openai.OpenAI(api_key="sk-test", base_url=f"{base}/v1", max_retries=0, http_client=self._http)
        self.gemini = genai.Client(
            api_key="key-test", http_options=genai.types.HttpOptions(base_url=base, httpx_client=self._http1)
        )

        self.groq = groq.Groq(api_key="gsk_test", base_url=base, max_retries=0, http_client=self._http1)
        self.mistral = mistralai.client.Mistral(api_key="test", server_url=base, client=self._http1)
        self.vertex = anthropic.AnthropicVertex(
            region="global",
            project_id="p",
            access_token="test",
            base_url=f"{base}/v1",
            max_retries=0,
            http_client=self._http,
        )
        self.mistral_on_vertex = mistralai.gcp.client.MistralGCP(
            project_id="p", access_token="test", server_url=base, client=self._http
        )
        self.cohere = cohere.ClientV2("test", base_url=base, max_retries=0, httpx_client=self._http1)
        self.bedrock_tap = _BotocoreTap(str(providers.ca_file), self.exchanges)
        self.bedrock = botocore.session.Session().create_client(
            "bedrock-runtime",
            "us-east-1",
            endpoint_url=base,
            aws_access_key_id="AKIATEST",
            aws_secret_access_key="test",
            config=botocore.config.Config(retries={"total_max_attempts": 1}),
        )
        self.bedrock.meta.events.register("before-send.bedrock-runtime", self.bedrock_tap)
        self._context = context
        self.ollama = self.ollama_with({})

    def ollama_with(self, headers: dict[str, str]) -> ollama.Client:
        """Return a client that sends the headers with every request."""
        inner = httpx.HTTPTransport(verify=self._context)
        return ollama.Client(self._base, headers=headers, transport=_transport(httpx, inner, self.exchanges))

    @contextmanager
    def speaking(self, path: str, messages: list[dict[str, Any]], *, cut: bool) -> Iterator[openai.OpenAI]:
        """Yield a client of a WebSocket server that waits for one message, sends ``messages``, and closes.

        If ``cut`` is true, the server aborts the connection after half of ``messages``.
        """
        texts = [json.dumps(message, ensure_ascii=False) for message in messages]
        sent = texts[: len(texts) // 2] if cut else texts
        lines = [text.encode() + b"\n" for text in sent]
        self.exchanges.append(Recorded(path, b"", "application/x-ndjson", None, {}, lines, cut))

        def talk(socket: Socket) -> None:
            socket.recv()
            for text in sent:
                socket.send(text)
            if cut:
                socket.abort()
            else:
                socket.close()

        with TemporaryDirectory() as directory, WebSocketProvider(Path(directory), tls=False) as provider:
            provider.talk = talk
            url = f"ws://127.0.0.1:{provider.port}/v1"
            yield openai.OpenAI(api_key="test", websocket_base_url=url, max_retries=0)

    def replaying(self, reply: Reply, http: Any = httpx2) -> Any:
        """Return a client of `httpx2` or `httpx` that receives the same reply to every request."""
        return http.Client(transport=_transport(http, _replay(http, reply), self.exchanges))

    def rest(self, path: str, body: dict[str, Any]) -> None:
        """Send a request for which no SDK has a method. Read the complete response."""
        self._http1.post(self._base + path, json=body, headers={"x-goog-api-key": "key-test"})

    @property
    def last(self) -> Recorded:
        return self.exchanges[-1]

    def close(self) -> None:
        self._http.close()
        self._http1.close()
        self.ollama.close()
        self.bedrock_tap.close()
