"""Tests of the masking of secrets in known formats: each rule, every split, near misses, time for hostile bodies."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
import subprocess
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from openclaw_egress.policy.mask_patterns import MaskPattern, mask_pattern
from openclaw_egress.recording import masking
from openclaw_egress.recording.credentials import CredentialScan
from openclaw_egress.recording.masking import LONG_TOKEN, MAX_HELD, RULES, Masker, mask, mask_json, mask_text
from openclaw_egress.recording.redaction import redact_text, redact_url
from tests.support.generated_secrets import private_pem, secrets

GENERATED = secrets(200)
OWN = (mask_pattern("acme", "acme_[0-9a-f]{32}"), mask_pattern("badge", r"badge [A-Z]{2} [0-9]{6,12}"))
# Formats in which only a part of the matching text is secret. IN_CONTEXT contains (text, secret, rule) for each.
AWS_SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
AZURE = "Eby8vdM02xNOcqF" * 5 + "lqUwJPLlmEtl=="
SERVICE_BUS = "Ab3" * 14 + "A="
HOOK = "T00000000/B00000000/abcdefABCDEF012345678901"
BOT = "AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsawX"
IN_CONTEXT = [
    (f"AWS_SECRET_ACCESS_KEY={AWS_SECRET}", AWS_SECRET, "aws-hidden"),
    (f'{{"SecretAccessKey": "{AWS_SECRET}"}}', AWS_SECRET, "aws-hidden"),
    (rf"{{\"secretAccessKey\":\"{AWS_SECRET}\"}}", AWS_SECRET, "aws-hidden"),
    (f"aws_secret_access_key = {AWS_SECRET}\n", AWS_SECRET, "aws-hidden"),
    (f"DefaultEndpointsProtocol=https;AccountName=a;AccountKey={AZURE};E=c", AZURE, "azure"),
    (f"Endpoint=sb://a/;SharedAccessKeyName=r;SharedAccessKey={SERVICE_BUS}", SERVICE_BUS, "azure"),
    (f"https://hooks.slack.com/services/{HOOK}", HOOK, "slack-hook"),
    (f"bot 123456789:{BOT}", BOT, "telegram"),
]
OTHERS = [
    ("discord", "MTA1MTk4MjY1NzE0MzA1NDM3Ng.GabcDE.0123456789abcdefghijklmnopqrstuvwxyzAB"),
    ("twilio", "AC" + "0a" * 16),
    ("postman", "PMAK-" + "0a" * 12 + "-" + "0b" * 17),
    ("google-access", "1//0" + "gAb3" * 16),
    ("huggingface", "api_org_" + "aBcD" * 9),
    ("openai", "sk-admin-" + "aB3_" * 20),
]
PARTS = [secret for _, secret in GENERATED[:60] + OTHERS] + [text for text, _, _ in IN_CONTEXT]


def written(rule: str, secret: str) -> str:
    """Return the text that replaces a secret that matches this rule."""
    return f"[masked:{rule}:{hashlib.sha256(secret.encode()).hexdigest()[:12]}]"


def in_pieces(data: bytes, sizes: list[int], own: tuple[MaskPattern, ...] = ()) -> bytes:
    """Mask a body that arrives in pieces, whose sizes repeat the list ``sizes``. Return the masked body."""
    masker, found, at, turn = Masker(own), b"", 0, 0
    while at < len(data):
        found += masker.feed(data[at : at + sizes[turn % len(sizes)]])
        assert len(masker.held) <= MAX_HELD + max(sizes)
        at += sizes[turn % len(sizes)]
        turn += 1
    return found + masker.finish()


@pytest.mark.parametrize(("rule", "secret"), GENERATED + OTHERS)
def test_secret_of_each_format_is_masked_wherever_it_can_begin(rule: str, secret: str) -> None:
    around = ["{}", "key={}", '{{"a": "{}"}}', "x\\n{}\\n", "a%3D{}%26b", "k\\u003d{}\\u0026", "({}),", "?key={}&b=1"]
    for form in around:
        assert mask_text(form.format(secret)) == form.format(written(rule, secret)), form


@pytest.mark.parametrize(("text", "secret", "rule"), IN_CONTEXT)
def test_secret_that_needs_its_context_is_masked(text: str, secret: str, rule: str) -> None:
    assert mask_text(text) == text.replace(secret, written(rule, secret))


def test_every_rule_has_an_example() -> None:
    assert {rule.name for rule in RULES} <= {name for name, _ in GENERATED + OTHERS} | {rule for *_, rule in IN_CONTEXT}


@pytest.mark.parametrize(
    "text",
    [
        "class=sk-toggleable__content sk-estimator-doc-link-2-label",
        "sk-learn-a-very-long-slug-with-words-and-2-numbers",
        "task-0123456789abcdefghijABCDEFGHIJ",
        "AKIA is a prefix; AKIAIOSFODNN7EXAMPLEX is too long",
        "mask_sk_live_without_a_key",
        "the model xai-grok and gsk_short and hf_hub_download_with_a_long_name",
        "npm_config_registry_with_a_very_long_name=https://registry.example.com",
        "eyJhbGciOiJIUzI1NiJ9",
        "-----BEGIN PRIVATE KEY----- is the first line of a key, and many lines of Base64 follow it.",
        "-----BEGIN PUBLIC KEY-----\n" + "A" * 64 + "\n-----END PUBLIC KEY-----",
        "-----BEGIN CERTIFICATE-----\n" + "A" * 64 + "\n-----END CERTIFICATE-----",
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "secret_access_key: see the file",
        "AccountKey=short==",
        "[masked:github:0123456789ab]",
        "resp_68f0b1c2d3e4f5a6b7c8d9e0f1a2b3c4d5e6f7a8b9c0d1e2 chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
        "toolu_01A09q90qw90lq917835lq9",
    ],
)
def test_text_that_only_resembles_a_secret_is_not_masked(text: str) -> None:
    assert mask(text.encode()) == (text.encode(), 0)


def test_secret_in_a_pem_is_masked_in_each_form_of_its_lines() -> None:
    pem = private_pem()
    body = "".join(pem.splitlines()[1:-1])
    expected = written("private-pem", body)
    forms = {
        "plain": pem,
        "CRLF": pem.replace("\n", "\r\n"),
        "JSON": json.dumps(pem)[1:-1],
        "JSON in JSON": json.dumps(json.dumps(pem)[1:-1])[1:-1],
        "indented": pem.replace("\n", "\n    "),
        "numbered": "".join(f"{number:6}\t{line}\n" for number, line in enumerate(pem.splitlines(), 1)),
        "numbered with arrows": "".join(f"{number:6}→{line}\n" for number, line in enumerate(pem.splitlines(), 1)),
        "encrypted": pem.replace("KEY-----\n", "KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00FF\n\n", 1),
        "one line": pem.replace("\n", " "),
    }
    for name, text in forms.items():
        for wrapped in (text, f'{{"a": "{text}"}}', f"x{text}y"):
            found = mask_text(wrapped)
            assert found.count(expected) == 1, (name, found)
            assert not any(line in found for line in pem.splitlines()[1:-1]), name
    assert body[:64] not in mask_text(pem[:700]), "the beginning of an incomplete key must be masked too"


def test_fingerprints_equal_those_of_the_documented_commands() -> None:
    _, secret = GENERATED[0]
    command = f"printf %s '{secret}' | sha256sum | cut -c1-12"
    assert subprocess.check_output(command, shell=True, text=True).strip() in mask_text(secret)
    pem = private_pem(3)
    command = "grep -v '[-:]' | tr -d '[:space:]' | sha256sum | cut -c1-12"
    assert subprocess.check_output(command, shell=True, text=True, input=pem).strip() in mask_text(json.dumps(pem))


@pytest.mark.parametrize("secret", PARTS, ids=range(len(PARTS)))
def test_secret_is_masked_when_it_is_split_at_any_position(secret: str) -> None:
    data = f'{{"before": "x {secret}", "after": 1}}'.encode()
    whole = mask(data)[0]
    assert b"[masked:" in whole
    for at in range(1, len(data)):
        masker = Masker()
        assert masker.feed(data[:at]) + masker.feed(data[at:]) + masker.finish() == whole, at
    assert in_pieces(data, [1]) == whole


def test_private_key_is_masked_when_it_is_split_at_any_position() -> None:
    data = json.dumps({"key": private_pem(2, lines=6), "token": GENERATED[0][1]}).encode()
    whole = mask(data)[0]
    assert whole.count(b"[masked:") == 2
    for at in range(1, len(data)):
        masker = Masker()
        assert masker.feed(data[:at]) + masker.feed(data[at:]) + masker.finish() == whole, at
    for step in (1, 7, 64):
        assert in_pieces(data, [step]) == whole


PIECE = st.sampled_from(
    [
        *(part.encode() for part in PARTS),
        private_pem(4, lines=3).encode(),
        *(b"-----BEGIN RSA PRIVATE KEY-----", b"-----BEGIN ", b"-----END ", b"eyJ", b"sk-", b"\\n", b"%3D"),
        *(b"acme_" + b"0a" * 16, b"badge AB 123456", b"badge AB 123456789012345"),
        *(b" ", b"\n", b'"', b".", b"-", b"=", b"a" * 30, b"A/b+" * 20, b"x" * (LONG_TOKEN - 40), b"\xff\x00"),
    ]
)


HEADER = b"-----BEGIN RSA PRIVATE KEY-----"
LINEAR = b"lin_api_" + b"aB3d" * 10
LONG = b"x" * (LONG_TOKEN - 40)


@example([LINEAR, HEADER, LONG, LONG], [1], False)
@example([LONG, b"x" * 30, private_pem(4, lines=3).encode()], [LONG_TOKEN - 5], False)
@example([LONG, b"x" * 60, private_pem(4, lines=3).encode()], [7], False)
@example([LONG, b"x" * 60, b"acme_" + b"0a" * 16], [11], True)
@example([HEADER, LINEAR, b"-", b"a" * 30, HEADER, b" badge AB 1"], [3, 44], False)
@example([b"badge AB 123456", b"xai-" + b"aB3d" * 20], [36], True)
@given(st.lists(PIECE, max_size=12), st.lists(st.integers(1, 4000), min_size=1, max_size=4), st.booleans())
def test_result_does_not_depend_on_where_pieces_end(parts: list[bytes], sizes: list[int], own: bool) -> None:
    data = b"".join(parts)
    patterns = OWN if own else ()
    assert in_pieces(data, sizes, patterns) == mask(data, patterns)[0]


def test_masked_text_stays_unchanged_when_it_is_masked_again() -> None:
    for rule, secret in GENERATED + OTHERS:
        once = mask_text(f"a {secret} b")
        assert mask_text(once) == once, rule


def test_replacement_does_not_count_as_a_credential() -> None:
    for name in {rule.name for rule in RULES} | {"private-pem", "aws-hidden", "acme"}:
        text = json.dumps({"content": f"[masked:{name}:0123456789ab]"})
        scan = CredentialScan("application/json", strict=True)
        scan.feed(text.encode())
        scan.finish()
        assert not scan.found, name
        assert redact_text(text) == text, name


def test_key_of_each_format_is_redacted_in_urls_and_log_messages() -> None:
    for rule, secret in GENERATED[:80] + OTHERS:
        assert secret not in redact_url(f"https://api.example.com/v1/{secret}/x"), rule
        assert secret not in redact_text(f"cannot open {secret}"), rule


def test_secret_in_strings_and_names_of_json_is_masked() -> None:
    rule, secret = GENERATED[0]
    value = [{"type": "text", "content": f"a {secret}", secret: [1, None, True]}]
    found, count = mask_json(value)
    assert (count, json.dumps(found).count(written(rule, secret)), secret in json.dumps(found)) == (2, 2, False)


def test_own_pattern_is_masked_across_spaces_and_pieces() -> None:
    data = b"x badge AB 123456, acme_" + b"0a" * 16 + b" end"
    expected = mask(data, OWN)
    assert expected[1] == 2 and b"[masked:badge:" in expected[0] and b"[masked:acme:" in expected[0]
    for at in range(1, len(data)):
        masker = Masker(OWN)
        assert masker.feed(data[:at]) + masker.feed(data[at:]) + masker.finish() == expected[0], at


def test_overlapping_matches_leave_no_byte_of_a_secret() -> None:
    own = (mask_pattern("tail", "[A-Z]{4}[a-z0-9 ]{4,40}"),)
    _, secret = next(pair for pair in GENERATED if pair[0] == "github")
    text = f"ABCD{secret[-6:].lower()} {secret} after"
    assert secret not in mask(text.encode(), own)[0].decode()


HOSTILE = {
    "prefixes": b"sk-" * 350_000,
    "prefixes with spaces": b" sk-" * 250_000,
    "prefixes in tokens": (b"/AKIA" * 1600 + b" ") * 125,
    "prefixes and runs": b"ghp_" + b"a" * 24 + b" " + b"ghp_aaaaaaaaaaaaaaaaaaaaaaaa " * 35_000,
    "web tokens": (b"eyJaaaaaaaaa." * 600 + b" ") * 130,
    "web tokens without an end": b"eyJ" + b"a" * 1_000_000,
    "one run": b"A" * 1_000_000,
    "words": (b"M" * 8000 + b" ") * 125,
    "keys that begin": b"-----BEGIN PRIVATE KEY-----" * 38_000,
    "key without an end": b"-----BEGIN PRIVATE KEY-----\n" + b"A" * 1_000_000,
    "key of short lines": b"-----BEGIN PRIVATE KEY-----" + b"\\n1:a" * 200_000,
    "beginnings": b"-----BEGIN " * 90_000,
    "names of secrets": (b"secret_access_key= " * 2 + b"a" * 45 + b" ") * 12_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_body_takes_bounded_time_and_memory(name: str) -> None:
    data = HOSTILE[name]
    for step in (len(data), 64 * 1024, 700):
        start = time.thread_time()
        in_pieces(data, [step])
        assert time.thread_time() - start < 6, step


def test_secret_after_a_hostile_body_is_masked() -> None:
    rule, secret = GENERATED[0]
    for name, data in HOSTILE.items():
        assert written(rule, secret).encode() in in_pieces(data + b'\n"' + secret.encode() + b'"', [4096]), name


def test_base64_of_an_image_is_not_masked() -> None:
    source = random.Random(7)
    for _ in range(5):
        image = base64.b64encode(source.randbytes(300_000))
        assert mask(b'{"url": "data:image/png;base64,' + image + b'"}')[1] == 0


def test_names_of_masking_rules_are_valid_in_a_policy() -> None:
    assert all(re.fullmatch(r"[a-z][a-z0-9-]{0,31}", rule.name) for rule in RULES)
    assert masking.FINGERPRINT_DIGITS == 12
