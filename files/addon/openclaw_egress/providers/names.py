"""Which API a path is, and whose a host is.

The API is known by the shape of the path, since many providers speak another's; the provider by the host alone. Names
of providers are the values of `gen_ai.provider.name` in the semantic conventions where they have one.
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
_DEPLOYMENT = re.compile(r"/deployments/([^/]{1,128})/")
# The host itself, or whatever ends in it at a dot.
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
    """The API that a path (with or without its query) belongs to."""
    bare = path.partition("?")[0].partition("#")[0]
    return next((api for shape, api in _PATHS if shape.search(bare)), None)


def provider_of(host: str) -> str | None:
    """The provider's name by the host; None for a host that is not known."""
    labels = host.lower().rstrip(".").split(".")
    for start in range(len(labels)):
        if (name := _HOSTS.get(".".join(labels[start:]))) is not None:
            return name
    whole = ".".join(labels)
    return next((name for shape, name in _REGIONAL if shape.search(whole)), None)


def deployment_of(path: str) -> str | None:
    """The deployment that Azure's paths name; there it stands for the model."""
    match = _DEPLOYMENT.search(path)
    return match.group(1) if match else None
