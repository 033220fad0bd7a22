"""Names of APIs by path, and of providers by host.

The path decides the API, because many providers implement another provider's API. The host decides the provider. Names
of providers are the values of `gen_ai.provider.name` in the semantic conventions where those define one.
"""

from __future__ import annotations

import re
from typing import Literal

Api = Literal["messages", "chat", "responses"]

_PATHS: tuple[tuple[re.Pattern[str], Api], ...] = (
    (re.compile(r"/v1/messages/?$"), "messages"),
    (re.compile(r"/chat/completions/?$"), "chat"),
    (re.compile(r"/responses/?$"), "responses"),
)
# Further paths that carry prompts, completions or vectors; nothing reads their bodies, the record keeps them exactly.
_MODEL_PATHS = re.compile(
    r"/(?:completions|complete|embeddings|embed|moderations|rerank|ocr|count_tokens|input_tokens)/?$"
    r"|/(?:chat/completions|responses|messages/batches|conversations|threads)/[A-Za-z0-9_\-]{1,128}(?:/[A-Za-z0-9_\-/]*)?$"
    r"|/messages/batches/?$|/v[12]/(?:chat|generate|conversations|threads|responses/compact)/?$|/api/(?:chat|generate)/?$"
    r"|/images/(?:generations|edits|variations)/?$|/audio/(?:speech|transcriptions|translations)/?$"
    r"|/model/[^/]{1,256}/(?:invoke|invoke-with-response-stream|converse|converse-stream|count-tokens)/?$"
    r"|/[^/]{1,256}:(?:generateContent|streamGenerateContent|countTokens|embedContent|batchEmbedContents|predict"
    r"|generateAnswer|rawPredict|streamRawPredict)$"
)
_DEPLOYMENT = re.compile(r"/deployments/([^/]{1,128})/")
# A host name, or any name below it.
_HOSTS = {
    "anthropic.com": "anthropic",
    "openai.com": "openai",
    "openai.azure.com": "azure.ai.openai",
    "cognitiveservices.azure.com": "azure.ai.openai",
    "services.ai.azure.com": "azure.ai.inference",
    "models.ai.azure.com": "azure.ai.inference",
    "generativelanguage.googleapis.com": "gcp.gemini",
    "aiplatform.googleapis.com": "gcp.vertex_ai",
    "groq.com": "groq",
    "deepseek.com": "deepseek",
    "x.ai": "x_ai",
    "mistral.ai": "mistral_ai",
    "cohere.com": "cohere",
    "cohere.ai": "cohere",
    "perplexity.ai": "perplexity",
    "ml.cloud.ibm.com": "ibm.watsonx.ai",
    "moonshot.ai": "moonshot_ai",
    "moonshot.cn": "moonshot_ai",
    "openrouter.ai": "openrouter",
}
_REGIONAL = (
    (re.compile(r"(^|[.-])aiplatform\.googleapis\.com$"), "gcp.vertex_ai"),
    (re.compile(r"^bedrock-(runtime|mantle)[.-].*(amazonaws\.com|\.api\.aws)$"), "aws.bedrock"),
)


def api_of(path: str) -> Api | None:
    """Return the API of a path, with or without its query."""
    bare = path.partition("?")[0].partition("#")[0]
    return next((api for shape, api in _PATHS if shape.search(bare)), None)


def is_model_api(path: str) -> bool:
    """Return whether the bodies at a path, with or without its query, are a model's input and output."""
    return api_of(path) is not None or _MODEL_PATHS.search(path.partition("?")[0].partition("#")[0]) is not None


def provider_of(host: str) -> str | None:
    """Return the provider's name of a host; None for an unknown host."""
    labels = host.lower().rstrip(".").split(".")
    for start in range(len(labels)):
        if (name := _HOSTS.get(".".join(labels[start:]))) is not None:
            return name
    whole = ".".join(labels)
    return next((name for shape, name in _REGIONAL if shape.search(whole)), None)


def deployment_of(path: str) -> str | None:
    """Return the deployment in a path of Azure's, where it stands for the model."""
    match = _DEPLOYMENT.search(path)
    return match.group(1) if match else None
