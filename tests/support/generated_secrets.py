"""Random secrets in the formats that their issuers document, for tests of masking. None of them is a real key."""

from __future__ import annotations

import base64
import json
import random
import string

_WORD = string.ascii_letters + string.digits
_URL_SAFE = _WORD + "-_"
_HEX = "0123456789abcdef"
_FORMATS = (
    ("anthropic", "sk-ant-api03-", _URL_SAFE, 95, ""),
    ("openrouter", "sk-or-v1-", _HEX, 64, ""),
    ("openai", "sk-proj-", _URL_SAFE, 156, ""),
    ("openai", "sk-svcacct-", _URL_SAFE, 120, ""),
    ("sk", "sk-", _WORD, 48, ""),
    ("google", "AIza", _URL_SAFE, 35, ""),
    ("google-access", "ya29.", _URL_SAFE, 200, ""),
    ("google-access", "GOCSPX-", _URL_SAFE, 28, ""),
    ("xai", "xai-", _WORD, 80, ""),
    ("groq", "gsk_", _WORD, 52, ""),
    ("huggingface", "hf_", string.ascii_letters, 34, ""),
    ("perplexity", "pplx-", _WORD, 48, ""),
    ("replicate", "r8_", _WORD, 37, ""),
    ("nvidia", "nvapi-", _URL_SAFE, 64, ""),
    ("cerebras", "csk-", string.ascii_lowercase + string.digits, 48, ""),
    ("together", "tgp_v1_", _URL_SAFE, 43, ""),
    ("tavily", "tvly-dev-", _WORD, 32, ""),
    *(("github", f"gh{kind}_", _WORD, 36, "") for kind in "pousr"),
    ("github", "github_pat_11ABCDEFG0", _WORD + "_", 71, ""),
    ("gitlab", "glpat-", _URL_SAFE, 20, ""),
    ("slack", "xoxb-123456789012-1234567890123-", _WORD, 24, ""),
    ("slack", "xoxp-123456789012-123456789012-123456789012-", _HEX, 32, ""),
    ("slack", "xapp-1-A0123456789-1234567890123-", _HEX, 64, ""),
    ("aws-access", "AKIA", string.ascii_uppercase + "234567", 16, ""),
    ("aws-access", "ASIA", string.ascii_uppercase + "234567", 16, ""),
    ("stripe", "sk_live_", _WORD, 99, ""),
    ("stripe", "rk_live_", _WORD, 24, ""),
    ("stripe", "whsec_", _WORD, 32, ""),
    ("twilio", "SK", _HEX, 32, ""),
    ("npm", "npm_", _WORD, 36, ""),
    ("pypi", "pypi-AgEIcHlwaS5vcmc", _URL_SAFE, 150, ""),
    ("digitalocean", "dop_v1_", _HEX, 64, ""),
    ("shopify", "shpat_", _HEX, 32, ""),
    ("vault", "hvs.", _URL_SAFE, 90, ""),
    ("databricks", "dapi", _HEX, 32, ""),
    ("linear", "lin_api_", _WORD, 40, ""),
    ("notion", "ntn_", _WORD, 46, ""),
    ("age", "AGE-SECRET-KEY-1", string.ascii_uppercase + string.digits, 58, ""),
)


def _run(source: random.Random, alphabet: str, length: int) -> str:
    return "".join(source.choices(alphabet, k=length - 1)) + source.choice(_WORD if alphabet is _URL_SAFE else alphabet)


def _web_token(source: random.Random) -> str:
    parts = ({"alg": "HS256", "typ": "JWT"}, {"sub": _run(source, _WORD, 24), "iat": source.randrange(2**31)})
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join([*encoded, _run(source, _URL_SAFE, 43)])


def secrets(number: int, seed: int = 0) -> list[tuple[str, str]]:
    """Return ``number`` pairs of a masking rule's name and a secret. Use all single-line formats in rotation."""
    source = random.Random(seed)
    found = []
    for at in range(number):
        choice = at % (len(_FORMATS) + 4)
        if choice < len(_FORMATS):
            name, prefix, alphabet, length, _ = _FORMATS[choice]
            found.append((name, prefix + _run(source, alphabet, length)))
        elif choice == len(_FORMATS):
            found.append(("web-jwt", _web_token(source)))
        elif choice == len(_FORMATS) + 1:
            found.append(("sendgrid", f"SG.{_run(source, _URL_SAFE, 22)}.{_run(source, _URL_SAFE, 43)}"))
        elif choice == len(_FORMATS) + 2:
            found.append(("langsmith", f"lsv2_pt_{_run(source, _HEX, 32)}_{_run(source, _HEX, 10)}"))
        else:
            found.append(("grafana", f"glsa_{_run(source, _WORD, 32)}_{_run(source, _HEX, 8)}"))
    return found


def private_pem(seed: int = 0, lines: int = 26) -> str:
    """Return random text in the format of a PEM private key."""
    source = random.Random(seed)
    body = [_run(source, _WORD + "+/", 64) for _ in range(lines)] + [_run(source, _WORD, 22) + "=="]
    return "\n".join(["-----BEGIN RSA PRIVATE KEY-----", *body, "-----END RSA PRIVATE KEY-----", ""])
