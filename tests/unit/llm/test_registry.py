"""Tests of the API registrations: they are complete and unambiguous, and each path is assigned to the right API."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from dataclasses import replace

import pytest

from openclaw_egress import llm
from openclaw_egress.llm import RequestFacts, provider_of, read_request
from openclaw_egress.llm.model import Api, error_of
from openclaw_egress.llm.registry import APIS, PROVIDER_ERRORS, api_of, bare_path, is_model_api
from openclaw_egress.policy.host_groups import hosts_of
from openclaw_egress.settings import DEFAULT_LLM_HOSTS

EXAMPLES = [(api.name, path) for api in APIS for path in api.examples]


@pytest.mark.parametrize(("name", "path"), EXAMPLES)
def test_path_matches_exactly_one_api(name: str, path: str) -> None:
    assert [api.name for api in APIS if api.path.search(path)] == [name]
    certain_at = next(api.certain_at for api in APIS if api.name == name)
    assert is_model_api("host.example", path) is not bool(certain_at)


@pytest.mark.parametrize(
    ("spelled", "path"),
    [
        ("/v1/mess%61ges", "/v1/messages"),
        ("/v1//messages", "/v1/messages"),
        ("/v1/./messages?beta=true", "/v1/messages"),
        ("/v1/chat//completions", "/v1/chat/completions"),
        ("/v1/chat%2Fcompletions", "/v1/chat%2Fcompletions"),
        ("/v1beta/models/gemini-2%2e5-flash%3AgenerateContent", "/v1beta/models/gemini-2.5-flash:generateContent"),
    ],
)
def test_path_in_another_spelling_belongs_to_the_same_api(spelled: str, path: str) -> None:
    assert api_of(spelled) is api_of(path)
    assert is_model_api("host.example", spelled) is is_model_api("host.example", path)
    assert read_request("host.example", spelled, b'{"model": "m"}') == read_request(
        "host.example", path, b'{"model": "m"}'
    )


@pytest.mark.parametrize("code", range(256))
def test_only_unreserved_characters_and_the_colon_are_decoded(code: int) -> None:
    character = chr(code)
    plain = character.isascii() and (character.isalnum() or character in "-._~:")
    for spelled in (f"%{code:02x}", f"%{code:02X}"):
        assert bare_path(f"/a{spelled}b") == (f"/a{character}b" if plain else f"/a{spelled}b")


@pytest.mark.parametrize(
    ("host", "path"),
    [
        ("api.minimax.io", "/v1/text/chatcompletion_v2"),
        ("api.minimaxi.com", "/v1/text/chatcompletion_pro"),
        ("dashscope.aliyuncs.com", "/api/v1/services/aigc/text-generation/generation"),
        ("dashscope-intl.aliyuncs.com", "/api/v1/services/embeddings/text-embedding/text-embedding"),
        ("api.perplexity.ai", "/v1/sonar"),
    ],
)
def test_bodies_at_an_unread_path_of_a_provider_are_recorded(host: str, path: str) -> None:
    assert is_model_api(host, path)
    assert api_of(path) is None
    assert not is_model_api("host.example", path)


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate/", "/api/embed"])
def test_path_that_other_servers_use_is_a_model_api_only_at_its_providers_hosts(path: str) -> None:
    assert is_model_api("ollama.com", path)
    assert not any(is_model_api(host, path) for host in ("ollama", "127.0.0.1", "api.openai.com", ""))


@pytest.mark.parametrize("api", [api for api in APIS if api.certain_at], ids=lambda api: api.name)
def test_path_is_certainly_of_its_api_at_hosts_of_its_providers(api: Api) -> None:
    hosts = [host.replace("*", "x") for host in hosts_of("@all") or () if provider_of(host) in api.certain_at]
    assert hosts
    for host, path in itertools.product(hosts, api.examples):
        assert is_model_api(host, path)
        # At the hosts in `certain_at`, even a request without a model belongs to the API.
        assert read_request(host, path, b"{}").operation_name == api.operation


def test_names_and_hosts_are_unique() -> None:
    assert all(api.examples for api in APIS)
    assert max(Counter(api.name for api in APIS).values()) == 1
    assert max(Counter(host for api in APIS for host in api.hosts).values()) == 1


def test_every_host_and_error_type_of_a_registration_is_known() -> None:
    for api in APIS:
        for host, name in api.hosts.items():
            assert provider_of(host) == provider_of(f"eu.{host}") == name
        assert api.error_types <= PROVIDER_ERRORS
    assert all(provider_of(host) for host in DEFAULT_LLM_HOSTS)
    grouped = hosts_of("@all") or ()
    assert not [host for host in grouped if provider_of(host.removeprefix("*.")) is None]


def test_error_type_of_one_api_is_known_to_that_api_only() -> None:
    error = {"code": "brand_new", "type": "api_error"}
    assert error_of(error, frozenset({"brand_new"})) == "brand_new"
    assert error_of(error) == "api_error"
    assert error_of({"type": "brand_new"}) == "_OTHER"


@pytest.mark.parametrize("api", APIS, ids=lambda api: api.name)
def test_registration_states_where_stream_and_model_are(api: Api) -> None:
    assert api.stream_in_path is None or api.stream_default is None
    assert api.model_in_path is None or api.model_in_path.groups == 1
    assert api.error_types.isdisjoint({"_OTHER"})


@pytest.mark.parametrize(
    "path",
    [
        "/model/my-imported-model/count-tokens",
        "/model/my-imported-model/invoke",
        "/model/my-imported-model/converse-stream",
        "/v1/projects/p/locations/l/publishers/ai21/models/jamba:streamRawPredict",
        "/v1/projects/p/locations/l/publishers/google/models/gemini:predict",
    ],
)
def test_path_of_an_api_without_a_parser_is_not_interpreted(path: str) -> None:
    assert read_request("host.example", path, b'{"contents": []}') == RequestFacts()
    assert is_model_api("aiplatform.googleapis.com" if ":" in path else "bedrock-runtime.eu.amazonaws.com", path)
    assert not is_model_api("host.example", path)


@pytest.fixture
def path_api(monkeypatch: pytest.MonkeyPatch) -> Api:
    """Return an API registration that reads the stream flag and the model from the path."""
    api = replace(
        APIS[0],
        name="in-path",
        path=re.compile(r"/models/[^/:]+:(?:stream)?Generate$"),
        stream_default=None,
        stream_in_path=re.compile(r":streamGenerate$"),
        model_in_path=re.compile(r"/models/([^/:]+):"),
    )
    monkeypatch.setattr(llm, "api_of", lambda path: api)
    return api


@pytest.mark.usefixtures("path_api")
@pytest.mark.parametrize(("verb", "stream"), [("streamGenerate", True), ("Generate", False)])
@pytest.mark.parametrize("body", [b"{}", b'{"contents": [', b'{"stream": "x"}'])
def test_stream_and_model_of_the_path_are_read(verb: str, stream: bool, body: bytes) -> None:
    assert read_request("h.example", f"/v1/models/m-1:{verb}?alt=sse", body) == RequestFacts(
        "chat", None, "m-1", stream
    )


@pytest.mark.usefixtures("path_api")
def test_request_without_body_is_not_an_operation() -> None:
    assert read_request("h.example", "/v1/models/m-1:streamGenerate", b"") == RequestFacts()


def test_stream_is_unknown_without_a_documented_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm, "api_of", lambda path: replace(APIS[0], stream_default=None))
    assert read_request("h.example", "/v1/messages", b"{}") == RequestFacts("chat", None, None, None)
    assert read_request("h.example", "/v1/messages", b'{"stream": false}').stream is False


def test_stream_default_applies_only_to_a_complete_body(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm, "api_of", lambda path: replace(APIS[0], stream_default=True))
    assert read_request("h.example", "/v1/messages", b"{}").stream is True
    assert read_request("h.example", "/v1/messages", b'{"model": "m", "mess').stream is None


def test_deployment_in_the_query_is_not_the_model() -> None:
    path = "/v1/chat/completions?next=/deployments/other/x"
    assert read_request("api.openai.com", path, b"{}") == RequestFacts("chat", "openai", None, False)
