"""APIs by path, and providers by host.

The path determines the API, because many providers implement another provider's API. The host determines the provider.
Provider names are the values of `gen_ai.provider.name` in the semantic conventions, if these define one.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from openclaw_egress.llm import (
    anthropic,
    bedrock,
    cohere_chat,
    cohere_chat_v1,
    gemini_generate_content,
    gemini_interactions,
    ollama,
    openai_chat,
    openai_completions,
    openai_media,
    openai_realtime,
    openai_responses,
    text_generation_inference,
    token_counting,
    vertex_partners,
    watsonx_generation,
)
from openclaw_egress.llm.model import SHARED_ERROR_TYPES, Api

# One line for each API. No path may match two APIs (tests/unit/llm/test_registry.py).
APIS: tuple[Api, ...] = (
    anthropic.API,
    openai_chat.API,
    openai_completions.API,
    openai_responses.API,
    openai_responses.RETRIEVED,
    openai_realtime.API,
    openai_media.EMBEDDINGS,
    openai_media.IMAGES,
    openai_media.AUDIO,
    cohere_chat.API,
    cohere_chat.EMBED,
    cohere_chat_v1.API,
    gemini_generate_content.API,
    gemini_generate_content.EMBED,
    gemini_interactions.API,
    ollama.CHAT,
    ollama.GENERATE,
    ollama.EMBED,
    bedrock.CONVERSE,
    bedrock.INVOKE_ANTHROPIC,
    bedrock.INVOKE_EMBEDDINGS,
    bedrock.INVOKE_OTHER,
    text_generation_inference.GENERATE,
    text_generation_inference.GENERATE_STREAM,
    vertex_partners.ANTHROPIC,
    vertex_partners.ANTHROPIC_REGIONAL,
    vertex_partners.MISTRAL,
    watsonx_generation.API,
    *token_counting.APIS,
)
PROVIDER_ERRORS = SHARED_ERROR_TYPES.union(*(api.error_types for api in APIS))
"""Error types that a response can name. Records use them as ``error.type``."""

# Paths of model APIs that this package does not read, and the providers that serve them. On the hosts of these
# providers, the bodies are prompts and completions. On other hosts, such a path can belong to any application, so the
# proxy scans the bodies for credentials.
_UNREAD_PATHS = (
    (re.compile(r"/rerank/?$|/v[12]/generate/?$"), {"cohere"}),
    (re.compile(r"/ocr/?$"), {"mistral_ai"}),
    (re.compile(r"/text/chatcompletion(?:_v2|_pro)?/?$"), {"minimax"}),
    # DashScope's own API. Do not match the other paths below `/services`, which serve files and tasks.
    (re.compile(r"/services/(?:aigc|embeddings|rerank)/[a-z0-9\-/]{1,64}$"), {"qwen"}),
    (re.compile(r"/sonar/?$"), {"perplexity"}),
    (re.compile(r"/interactions/[A-Za-z0-9_\-]{1,512}(?:/cancel)?$"), {"gcp.gemini", "gcp.vertex_ai"}),
    # Bedrock's paths for models whose IDs the registrations do not match, such as imported models.
    (
        re.compile(r"/model/[^/.:%]{1,256}/(?:converse(?:-stream)?|invoke(?:-with-response-stream)?|count-tokens)/?$"),
        {"aws.bedrock"},
    ),
    (
        re.compile(r"/[^/]{1,256}:(?:predict|generateAnswer|rawPredict|streamRawPredict)$"),
        {"gcp.gemini", "gcp.vertex_ai", "gcp.gen_ai"},
    ),
)
_REGIONAL = (
    (re.compile(r"(^|[.-])aiplatform(\.[a-z0-9-]+\.rep)?\.googleapis\.com$"), "gcp.vertex_ai"),
    (re.compile(r"(^|\.)bedrock-(runtime|mantle)[.-].*\.(amazonaws\.com(\.cn)?|api\.aws)$"), "aws.bedrock"),
)
_HOSTS = {host: name for api in APIS for host, name in api.hosts.items()}
_MODEL_PATHS = (
    *(api.path for api in APIS if not api.certain_at),
    *(api.other_paths for api in APIS if api.other_paths),
)
_MODEL_PATHS_BY_HOST = (*_UNREAD_PATHS, *((api.path, api.certain_at) for api in APIS if api.certain_at))


# Normalise the spellings that servers treat as the same path: percent-encoded unreserved characters (RFC 3986, section
# 6.2.2.2), a percent-encoded colon before Google's methods, repeated slashes (nginx merges them), and `.` segments.
_ENCODED = re.compile(r"%(?:2[DdEe]|3[0-9Aa]|[46][1-9A-Fa-f]|[57][0-9Aa]|5[Ff]|7[Ee])")
_SLASHES = re.compile(r"/(?:\.?/)+")


def bare_path(path: str) -> str:
    """Return the path without its query and fragment, in the spelling that the registrations match."""
    bare = path.partition("?")[0].partition("#")[0]
    return _SLASHES.sub("/", _ENCODED.sub(lambda found: unquote(found[0]), bare))


def api_of(path: str) -> Api | None:
    """Return the API of a path, with or without its query."""
    bare = bare_path(path)
    return next((api for api in APIS if api.path.search(bare)), None)


def is_model_api(host: str, path: str) -> bool:
    """Return whether the bodies on a path, with or without its query, are a model's input and output.

    The path of a registered API matches on every host, because many providers implement it. A path that other servers
    use for other purposes matches only on the hosts of its providers: elsewhere, `/api/generate` may return an access
    token.
    """
    bare = bare_path(path)
    if any(shape.search(bare) for shape in _MODEL_PATHS):
        return True
    served_by = [providers for shape, providers in _MODEL_PATHS_BY_HOST if shape.search(bare)]
    return bool(served_by) and any(provider_of(host) in providers for providers in served_by)


def provider_of(host: str) -> str | None:
    """Return the name of the provider that a host belongs to; None for an unknown host."""
    labels = host.lower().rstrip(".").split(".")
    for start in range(len(labels)):
        if (name := _HOSTS.get(".".join(labels[start:]))) is not None:
            return name
    whole = ".".join(labels)
    return next((name for shape, name in _REGIONAL if shape.search(whole)), None)
