"""Named groups of LLM hosts, for ``inspect`` in the policy and for ``PROXY_LLM_HOSTS``.

`GROUPS` is the only list of these hosts; ``make docs`` writes a table of them to ``docs/providers.md``. Sources: the
base URLs in the documentation of OpenClaw 2026.9.6 and in the providers' API references; the public regions of
``bedrock`` in botocore 1.44; the locations in the documentation of Vertex AI.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_REGIONS: Mapping[str, Sequence[str]] = {
    "AWS_REGION": """
        af-south-1 ap-east-2 ap-northeast-1 ap-northeast-2 ap-northeast-3 ap-south-1 ap-south-2 ap-southeast-1
        ap-southeast-2 ap-southeast-3 ap-southeast-4 ap-southeast-5 ap-southeast-6 ap-southeast-7 ca-central-1
        ca-west-1 eu-central-1 eu-central-2 eu-north-1 eu-south-1 eu-south-2 eu-west-1 eu-west-2 eu-west-3
        il-central-1 me-central-1 me-south-1 mx-central-1 sa-east-1 us-east-1 us-east-2 us-gov-east-1
        us-gov-west-1 us-west-1 us-west-2
    """.split(),  # noqa: SIM905
    "GOOGLE_REGION": """
        africa-south1 asia-east1 asia-east2 asia-northeast1 asia-northeast2 asia-northeast3 asia-south1 asia-southeast1
        asia-southeast2 australia-southeast1 australia-southeast2 europe-central2 europe-north1 europe-southwest1
        europe-west1 europe-west12 europe-west2 europe-west3 europe-west4 europe-west6 europe-west8 europe-west9
        me-central1 me-central2 me-west1 northamerica-northeast1 northamerica-northeast2 southamerica-east1
        southamerica-west1 us-central1 us-east1 us-east4 us-east5 us-south1 us-west1 us-west2 us-west3 us-west4
    """.split(),  # noqa: SIM905
}
GROUPS: Mapping[str, tuple[str, ...]] = {
    "anthropic": ("api.anthropic.com",),
    "openai": ("api.openai.com", "*.api.openai.com"),
    "chatgpt": ("chatgpt.com",),
    "google": ("generativelanguage.googleapis.com", "cloudcode-pa.googleapis.com"),
    "vertex": (
        "aiplatform.googleapis.com",
        "aiplatform.eu.rep.googleapis.com",
        "aiplatform.us.rep.googleapis.com",
        "GOOGLE_REGION-aiplatform.googleapis.com",
    ),
    "azure": (
        "*.openai.azure.com",
        "*.cognitiveservices.azure.com",
        "*.services.ai.azure.com",
        "*.models.ai.azure.com",
    ),
    "bedrock": ("bedrock-runtime.AWS_REGION.amazonaws.com", "bedrock-mantle.AWS_REGION.api.aws"),
    "openrouter": ("openrouter.ai",),
    "mistral": ("api.mistral.ai", "codestral.mistral.ai"),
    "groq": ("api.groq.com",),
    "deepseek": ("api.deepseek.com",),
    "xai": ("api.x.ai", "*.api.x.ai"),
    "together": ("api.together.ai", "api.together.xyz"),
    "fireworks": ("api.fireworks.ai",),
    "cerebras": ("api.cerebras.ai",),
    "cohere": ("api.cohere.com", "api.cohere.ai"),
    "moonshot": ("api.moonshot.ai", "api.moonshot.cn", "api.kimi.com"),
    "zai": ("api.z.ai", "open.bigmodel.cn"),
    "minimax": ("api.minimax.io", "api.minimaxi.com"),
    "qwen": (
        "dashscope.aliyuncs.com",
        "dashscope-intl.aliyuncs.com",
        "dashscope-us.aliyuncs.com",
        "coding.dashscope.aliyuncs.com",
        "coding-intl.dashscope.aliyuncs.com",
    ),
    "copilot": ("*.githubcopilot.com",),
    "huggingface": ("router.huggingface.co",),
    "nvidia": ("integrate.api.nvidia.com",),
    "perplexity": ("api.perplexity.ai",),
    "ollama-cloud": ("ollama.com",),
}
"""Hosts of each group. In a host, `AWS_REGION` and `GOOGLE_REGION` are placeholders for each region.

An operator's own servers (Ollama, vLLM, LM Studio, llama.cpp) are in no group, because they have no fixed names.
"""
ALL = "all"
"""The name that stands for all groups."""


def group_names() -> tuple[str, ...]:
    """Return the names of all groups, and `ALL`."""
    return (*GROUPS, ALL)


def hosts_of(entry: str) -> tuple[str, ...] | None:
    """Return the hosts of the group ``@name`` or ``name``. Return None for any other entry, such as a host.

    If a host has the same name as a group, an entry with a final dot names the host: ``qwen.``.

    Raises:
        LookupError: the entry begins with ``@``, and no group has the name.
    """
    name = entry.removeprefix("@")
    if name == ALL:
        return tuple(host for group in GROUPS for host in _expanded(group))
    if name in GROUPS:
        return _expanded(name)
    if entry.startswith("@"):
        raise LookupError(name)
    return None


def _expanded(group: str) -> tuple[str, ...]:
    found: list[str] = []
    for host in GROUPS[group]:
        mark = next((mark for mark in _REGIONS if mark in host), None)
        found += [host] if mark is None else [host.replace(mark, region) for region in _REGIONS[mark]]
    return tuple(found)
