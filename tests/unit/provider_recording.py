"""Recordings of the official SDKs' calls to the fake provider, with the received bytes of every response."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field

import anthropic
import httpx2
import openai

from openclaw_egress.llm import RequestFacts, ResponseFacts, read_request, response_reader
from openclaw_egress.wire.content_encoding import BodyDecoder
from tests.support.llm_providers import LLMProviders


@dataclass
class Recorded:
    """One exchange: the request's body and the response's, still content-encoded."""

    path: str
    request: bytes
    content_type: str | None
    content_encoding: str | None
    chunks: list[bytes] = field(default_factory=list)

    def decoded(self) -> bytes:
        decoder = BodyDecoder(self.content_encoding)
        body = b"".join(decoder.feed(chunk) for chunk in self.chunks) + decoder.finish()
        assert decoder.error is None
        return body

    def response_facts(self, host: str) -> ResponseFacts:
        reader = response_reader(host, self.path, self.content_type)
        decoder = BodyDecoder(self.content_encoding)
        for chunk in self.chunks:
            reader.feed(decoder.feed(chunk))
        reader.feed(decoder.finish())
        return reader.finish()

    def request_facts(self, host: str) -> RequestFacts:
        return read_request(host, self.path, self.request)


class _Tap(httpx2.SyncByteStream):
    def __init__(self, stream: httpx2.SyncByteStream, kept: list[bytes]) -> None:
        self._stream = stream
        self._kept = kept

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            self._kept.append(bytes(chunk))
            yield chunk

    def close(self) -> None:
        self._stream.close()


class _Transport(httpx2.BaseTransport):
    def __init__(self, context: ssl.SSLContext, exchanges: list[Recorded]) -> None:
        self._inner = httpx2.HTTPTransport(verify=context)
        self._exchanges = exchanges

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        response = self._inner.handle_request(request)
        headers = response.headers
        one = Recorded(
            request.url.raw_path.decode(),
            request.read(),
            headers.get("content-type"),
            headers.get("content-encoding"),
        )
        self._exchanges.append(one)
        assert isinstance(response.stream, httpx2.SyncByteStream)
        return httpx2.Response(
            response.status_code,
            headers=headers,
            stream=_Tap(response.stream, one.chunks),
            extensions=response.extensions,
        )

    def close(self) -> None:
        self._inner.close()


class Clients:
    """Both SDKs, connected to one fake provider; `last` is the latest exchange."""

    def __init__(self, providers: LLMProviders) -> None:
        self.exchanges: list[Recorded] = []
        context = ssl.create_default_context(cafile=str(providers.ca_file))
        base = f"https://localhost:{providers.port}"
        self._http = httpx2.Client(transport=_Transport(context, self.exchanges))
        self.anthropic = anthropic.Anthropic(
            api_key="sk-ant-test", base_url=base, max_retries=0, http_client=self._http
        )
        self.openai = openai.OpenAI(api_key="sk-test", base_url=f"{base}/v1", max_retries=0, http_client=self._http)

    @property
    def last(self) -> Recorded:
        return self.exchanges[-1]

    def close(self) -> None:
        self._http.close()
