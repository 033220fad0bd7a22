"""Formats of API keys: OpenAI, Anthropic and similar; Google; GitHub; GitLab; Slack; AWS; Groq, xAI, Hugging Face, npm.

`redaction` masks keys in headers, URLs and log messages; `credentials` finds them in bodies. A short text such as
``sk-abcdef`` is masked in a URL, to be safe. In a body it can be prose, so only a longer text counts as a key there.
"""

from __future__ import annotations

from typing import NamedTuple


class KeyFormat(NamedTuple):
    """One format: a fixed prefix, an optional pattern after it, and a run of characters from an alphabet.

    The run has a minimum length: ``in_text`` in headers, URLs and log messages, and ``in_body`` in bodies.
    """

    prefix: str
    alphabet: str
    in_text: int
    in_body: int
    pattern: str = ""


_WORD, _DASH, _UNDERSCORE = "A-Za-z0-9", r"A-Za-z0-9\-", "A-Za-z0-9_"
_URL_SAFE = r"A-Za-z0-9_\-"

KEY_FORMATS = (
    KeyFormat("sk-", _URL_SAFE, 6, 12),
    KeyFormat("AIza", _URL_SAFE, 20, 20),
    *(KeyFormat(f"gh{kind}_", _WORD, 16, 16) for kind in "pousr"),
    KeyFormat("github_pat_", _UNDERSCORE, 16, 16),
    KeyFormat("glpat-", _URL_SAFE, 12, 12),
    KeyFormat("xox", _DASH, 8, 8, "[a-eoprs]-"),
    KeyFormat("xapp-", _DASH, 12, 12),
    *(KeyFormat(prefix, "A-Z0-9", 16, 16) for prefix in ("AKIA", "ASIA")),
    *(KeyFormat(prefix, _WORD, 16, 16) for prefix in ("gsk_", "xai-", "hf_", "npm_", "sk_live_", "rk_live_")),
    KeyFormat("ya29", _URL_SAFE, 16, 16, r"\."),
    KeyFormat("GOCSPX-", _URL_SAFE, 12, 12),
)
