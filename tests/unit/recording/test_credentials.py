"""Tests of the search for credentials in bodies: every format, every split into chunks, and linear time."""

import itertools
import json
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from openclaw_egress.recording.credentials import _SHAPES_OF, CredentialScan, are_credentials, scan_for

SECRET = "s3cr3t-Value_0123456789"

FORMS = {
    "JSON": f'{{"client_secret":"{SECRET}"}}',
    "JSON with spaces": f'{{"client_secret"\n : \t"{SECRET}"}}',
    "JSON below the top": f'{{"a":[{{"b":{{"refreshToken":"{SECRET}"}}}}]}}',
    "JSON in JSON": json.dumps({"body": json.dumps({"client_secret": SECRET})}),
    "JSON in JSON twice": json.dumps({"x": json.dumps({"body": json.dumps({"client_secret": SECRET})})}),
    "JSON with an escaped name": f'{{"\\u0063lient\\u005Fsecret":"{SECRET}"}}',
    "JSON with a number": '{"device_code":123456}',
    "JSON with a weak name": f'{{"token":"{SECRET}"}}',
    "JSON with an object": f'{{"credentials":{{"x":"{SECRET}"}}}}',
    "JSON pairs": f'[{{"name":"client_secret","value":"{SECRET}"}}]',
    "JSON with a prefix": f'{{"openaiApiKey":"{SECRET}"}}',
    "JSON lines": f'{{"n":1}}\n{{"client_secret":"{SECRET}"}}\n',
    "event stream": f'event: x\ndata: {{"n":1}}\n\ndata: {{"access_token":"{SECRET}"}}\n\n',
    "event stream of text": f"data: client_secret={SECRET}\n\n",
    "form": f"grant_type=x&client_secret={SECRET}",
    "form with an escaped name": f"a=1&client%5Fsecret={SECRET}",
    "form escaped twice": f"a=1&client%255fsecret={SECRET}",
    "form with brackets": f"user[password]={SECRET}",
    "form with a short name": f"key={SECRET}",
    "form with JSON": f"payload=%7B%22client_secret%22%3A%22{SECRET}%22%7D",
    "multipart": f'--B\r\nContent-Disposition: form-data; name="client_secret"\r\n\r\n{SECRET}\r\n--B--\r\n',
    "multipart without quotes": f"--B\r\ncontent-disposition: form-data; name=client_secret\r\n\r\n{SECRET}\r\n--B--",
    "multipart with brackets": f'--B\r\nContent-Disposition: form-data; name="user[password]"\r\n\r\n{SECRET}\r\n--B--',
    "repeated password": f'{{"password_confirmation":"{SECRET}"}}',
    "numbered password": f'{{"password2":"{SECRET}"}}',
    "passcode": f'{{"passcode":"{SECRET}"}}',
    "XML-RPC": f"<member><name>password</name><value>{SECRET}</value></member>",
    "property list": f"<key>password</key><string>{SECRET}</string>",
    "XML": f"<?xml version='1.0'?><a><client_secret>{SECRET}</client_secret></a>",
    "XML that ends early": f"<a><client_secret>{SECRET}",
    "XML with a namespace": f'<o:a xmlns:o="urn:x"><o:ClientSecret o:type="b">{SECRET}</o:ClientSecret></o:a>',
    "XML with an attribute": f'<config client_secret="{SECRET}"/>',
    "XML with a named attribute": f"<param name='client_secret' value='{SECRET}'/>",
    "XML with a weak name": f"<r><token>{SECRET}</token></r>",
    "XML with entities": f'<p name="client&#95;secret" value="{SECRET}"/>',
    "CDATA": f"<password><![CDATA[{SECRET}]]></password>",
    "YAML": f"a: 1\nclient_secret: {SECRET}\n",
    "YAML in a list": f"users:\n  - token: {SECRET}\n",
    "text": f"Client Secret: {SECRET}",
    "properties": f"a=1\nspring.datasource.password={SECRET}\n",
    "header in text": f"Authorization: Basic {SECRET}",
    "URL in JSON": f'{{"url":"https://h.example/?x=1&X-Amz-Signature={SECRET}"}}',
    "key of OpenAI": '{"value":"sk-proj-abcdefghij0123456789"}',
    "key of Anthropic": '{"key":"sk-ant-api03-abcdefghij0123456789"}',
    "key after an escape": '{"text":"it is\\nsk-ant-api03-abcdefghij0123456789"}',
    "key of Slack": '["xoxb-0123456789-abcdef"]',
    "key of GitHub": "ghp_abcdefghijklmnop0123456789",
    "fine-grained key of GitHub": "github_pat_abcdefghijklmnop0123456789",
    "key of a Slack user": '["xoxc-0123456789-abcdef"]',
    "key of npm": '["npm_0123456789abcdefghijklmnopqrstuvwxyz"]',
    "key of Stripe": "sk_live_0123456789abcdefghijklmn",
    "OAuth token of Google": "x: ya29.a0AfH6SMBx0123456789abcdef",
    "OAuth secret of Google": '["GOCSPX-0123456789abcdefghijklmn"]',
    "token of a bot": '{"bot_token": "S"}',
    "authorization code": '{"authorization_code": "S"}',
    "encryption key": '{"encryption_key": "S"}',
    "key of GitLab": "<x>glpat-abcdefghij0123456789</x>",
    "key of AWS": "AKIAABCDEFGHIJKLMNOP",
    "key of Google": "x: AIzaSyabcdefghijklmnopqrstuvwxyz012345",
    "key of Hugging Face": "hf_abcdefghijklmnop0123456789",
    "JSON web token": '{"v":"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abcdef"}',
    "PEM": '{"pem":"-----BEGIN RSA PRIVATE KEY-----\\nMIIE"}',
    "bearer": "it was Bearer abcdefghijklmnopqrst",
}  # fmt: skip
PLAIN = {
    "usage": '{"usage":{"total_tokens":5,"max_tokens":7},"object":"list","has_more":false}',
    "page token": '{"nextPageToken":"CAUQAA","next_page_token":"x"}',
    "prose": "disk-based and risk-free: the secret of tokens, keys and passwords is that an author keeps them.",
    "error": '{"error":{"message":"Incorrect API key provided: sk-proj-****.","code":"invalid_api_key"}}',
    "models": '{"data":[{"id":"gpt-5","object":"model","owned_by":"openai"}]}',
    "event": '[{"event_type":"x","event_data":{"session_id":"1","device_id":"2","key":"F5"}}]',
    "cursor": '{"after":"eyJpZCI6MTIzNDU2Nzg5MH0"}',
    "form": "model=gpt-5&keyboard=us&zip_code=12345&tokenize",
    "XML": "<a><tokens>5</tokens></a>",
    "percent": "100% of 5% & more &#x",
    "code of a picture": "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAsk",
}


def verdict(pieces, content_type=None, **options):
    scan = CredentialScan(content_type, **options)
    for piece in pieces:
        scan.feed(piece)
    scan.finish()
    return scan.found


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("content_type", [None, "text/event-stream", "application/octet-stream"])
def test_credential_is_found_in_every_format_for_any_content_type(form, content_type):
    assert verdict([FORMS[form].encode()], content_type)


@pytest.mark.parametrize("coding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig"])
@pytest.mark.parametrize("form", FORMS)
def test_credential_is_found_in_every_unicode_encoding(form, coding):
    assert verdict([FORMS[form].encode(coding)])


@pytest.mark.parametrize("form", PLAIN)
def test_body_without_credentials_is_not_withheld(form):
    assert not verdict([PLAIN[form].encode()])


@pytest.mark.parametrize("body", [*FORMS.values(), *PLAIN.values()])
def test_verdict_is_the_same_for_each_split_in_two_and_for_single_bytes(body):
    data = body.encode()
    expected = verdict([data])
    assert verdict([bytes([byte]) for byte in data]) == expected
    for cut in range(len(data)):
        assert verdict([data[:cut], data[cut:]]) == expected


_pieces = st.one_of(
    st.sampled_from(
        ["client", "secret", "_", "-", "token", "access", "key", "=", ":", '"', "\\", "\\u005f", "%5f", "%25", "&#95;",
         "&", "<", ">", "\n", " ", "a", "name", "sk-", "ant", "0123456789", "eyJ", ".", "ghp_", "x" * 600, "é"]
    ),
    st.text(max_size=3),
)  # fmt: skip


@given(st.lists(_pieces, max_size=40), st.lists(st.integers(0, 3000), max_size=8))
@example(["client", "%", "25", "5f", "secret", "=", "a"], [7, 8])
def test_verdict_never_depends_on_chunk_boundaries(pieces, cuts):
    body = "".join(pieces).encode()
    bounds = [0, *sorted(cut for cut in cuts if cut < len(body)), len(body)]
    assert verdict([body[a:b] for a, b in itertools.pairwise(bounds)]) == verdict([body])


@given(st.integers(0, 140_000), st.integers(500, 70_000), st.sampled_from(sorted(FORMS)))
def test_credential_in_the_middle_of_a_long_body_is_found_for_any_chunk_size(before, size, form):
    if form.startswith(("form with a short name", "form with JSON")):
        return
    body = b"lorem ipsum " * (before // 12) + b"\n" + FORMS[form].encode() + b" dolor" * 2000
    assert verdict([body[at : at + size] for at in range(0, len(body), size)])


@pytest.mark.parametrize(
    "path",
    [
        "/v1/messages", "/v1/chat/completions", "/v1/responses", "/v1/responses/resp_1", "/v1/embeddings",
        "/v1/completions", "/v1/messages/count_tokens", "/v1/messages/batches", "/v1/messages/batches/b_1/results",
        "/v1beta/models/gemini-2.5-pro:generateContent", "/v1internal:streamGenerateContent?alt=sse",
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", FORMS)
def test_body_of_a_model_api_is_kept_even_if_it_contains_keys(path, form):
    assert not are_credentials("api.anthropic.com", path, [("application/json", FORMS[form].encode())])


# Hosts and paths of model APIs. The scan skips each path only at this host, because the same path may belong to a
# different service at other hosts.
AT_ITS_HOSTS = [
    ("generativelanguage.googleapis.com", "/v1beta/models/gemini-2.5-pro:countTokens"),
    ("generativelanguage.googleapis.com", "/v1beta/models/gemini-2.5-pro:generateAnswer"),
    ("europe-west1-aiplatform.googleapis.com", "/v1/projects/p/locations/l/publishers/google/models/gemini:predict"),
    ("bedrock-runtime.eu-west-1.amazonaws.com", "/model/anthropic.claude-v2:1/invoke"),
    ("vpce-1.bedrock-runtime.eu-west-1.vpce.amazonaws.com", "/model/anthropic.claude-v2%3A1/converse-stream"),
    ("bedrock-runtime.eu-west-1.amazonaws.com", "/model/imported/invoke"),
    ("bedrock-runtime.eu-west-1.amazonaws.com", "/model/imported/count-tokens"),
    ("bedrock-runtime.eu-west-1.amazonaws.com", "/model/anthropic.claude-v2:1/count-tokens"),
    ("api.cohere.com", "/v2/rerank"),
    ("api.mistral.ai", "/v1/ocr"),
    ("ollama.com", "/api/chat"),
    ("ollama.com", "/api/generate"),
    ("ollama.com", "/api/embed"),
    ("api.cohere.com", "/v2/embed"),
]


OTHERS = ("api.anthropic.com", "vault.example.com", "evilamazonaws.com", "192.0.2.1", "")


@pytest.mark.parametrize(("host", "path"), AT_ITS_HOSTS)
def test_path_of_few_hosts_is_exempt_from_the_scan_only_there(host, path):
    body = [("application/json", FORMS["JSON"].encode())]
    assert not are_credentials(host, path, body)
    lookalikes = (f"{host}.example.com", host.replace(".", "-"), host.replace(".amazonaws", ".evilamazonaws"))
    for other in {*OTHERS, *lookalikes} - {host}:
        assert are_credentials(other, path, body), other


@pytest.mark.parametrize("path", ["/v1/connect", "/v1/files", "/v1/sessions", "/v1/models", "/", "/v1/messages/x"])
def test_both_bodies_are_scanned_at_every_other_path(path):
    body = b'{"key":"sk-ant-api03-abcdefghij0123456789"}'
    assert are_credentials("api.anthropic.com", path, [(None, b"{}"), ("application/json", body)])
    assert not are_credentials("api.anthropic.com", path, [(None, b"{}"), ("application/json", b'{"a":"b"}')])


@pytest.mark.parametrize("path", ["/v1/sessions", "/sessions/1", "/v1/user_sessions", "/Account:link"])
@pytest.mark.parametrize("content_type", ["application/octet-stream", "application/x-protobuf", "image/png", None])
def test_opaque_body_is_withheld_at_a_path_of_sessions_and_accounts(path, content_type):
    scan = scan_for("api.anthropic.com", path, content_type)
    scan.feed(b"\n\x0b" + SECRET.encode())
    assert scan.found


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/v1/sessions", "application/json; charset=utf-8"),
        ("/v1/sessions", "text/event-stream"),
        ("/v1/sessions", None),
        ("/v1/files", "application/octet-stream"),
        ("/v1/obsessions", "application/octet-stream"),
    ],
)
def test_binary_body_at_other_paths_is_not_withheld(path, content_type):
    scan = scan_for("api.anthropic.com", path, content_type)
    scan.feed(b'{"id":"sesn_1"}')
    scan.finish()
    assert not scan.found


MEGABYTE = 1024 * 1024
HOSTILE = {
    name: (piece * (MEGABYTE // len(piece) + 1))[:MEGABYTE]
    for name, piece in {
        "quotes": b'"', "brackets": b"[", "objects": b'{"a":', "backslashes": b"\\", "percent": b"%",
        "escapes": b"\\u0041", "percent-encoded": b"%41", "entities": b"&#65;", "spaces": b"\n", "names": b"token",
        "secrets": b"secret", "names and quotes": b"secret" + b'"' * 64, "names and spaces": b"secret\n" + b"a" * 64,
        "keys": b"accesskey", "pairs": b"name=abcabcabcabcabcabcabcabcabcabcabc", "shapes": b"ask-aaaaaaaaaaaa",
        "tokens": b" eyJ" + b"a" * 2100,
        "short tokens": b" eyJ", "PEM": b"-----BEGIN PRIVATE KE", "mixed": b"secret%41&#65;ask-eyJtoken code=key \\",
    }.items()
}  # fmt: skip


@pytest.mark.parametrize("size", [MEGABYTE, 4096])
@pytest.mark.parametrize("name", HOSTILE)
def test_scan_of_a_hostile_body_takes_linear_time(name, size):
    body = HOSTILE[name]
    scan = CredentialScan("application/json")
    begin = time.process_time()
    for at in range(0, len(body), size):
        scan.feed(body[at : at + size])
    scan.finish()
    # The scan takes 30 to 100 ms on an idle core. An earlier version, whose time was not linear, took 600 ms or more.
    assert time.process_time() - begin < 0.4
    assert len(scan._text) + len(scan._names) == 0


def test_bytes_kept_between_chunks_are_bounded():
    scan = CredentialScan(None)
    for _ in range(50):
        scan.feed(b"x" * 10_000)
        assert len(scan._text) + len(scan._names) + len(scan._held) < 3000


_NAME_PIECES = st.sampled_from(
    [
        *(
            "client",
            "secret",
            "token",
            "password",
            "access",
            "key",
            "name",
            "id",
            "code",
            ":",
            "=",
            ">",
            "<",
            "\n",
            '"',
        ),
        *("/", "[", "&", "x" * 30, " " * 8, '"' * 60, "lorem " * 300),
    ]
)


@given(st.lists(_NAME_PIECES, max_size=30), st.integers(0, 4000))
@example(["lorem " * 300, "token", "="], 1806)
@example(["lorem " * 300, "token", "=", '"'], 1806)
def test_verdict_does_not_depend_on_surrounding_prose(pieces, cut):
    body = "".join(pieces).encode()
    assert verdict([body[:cut], body[cut:]]) == verdict([body])
    # Normally, the scan searches only near `:`, `=` and `>`. If a text has many of them, it searches the whole text.
    # Append many colons, and expect the verdict of this complete search to be the same.
    body += b"|" * 100
    assert verdict([body]) == verdict([body + b":" * len(body)])


@pytest.mark.parametrize("end", ["token=", 'token="', "token=\n"])
def test_name_at_the_end_of_a_chunk_matches_a_value_in_the_next(end):
    scan = CredentialScan(None)
    scan.feed(b"a > b " + b"lorem ipsum " * 100 + b"max" + end.encode())
    assert not scan.found


@pytest.mark.parametrize("dashes", [0, 100, 5000])
@pytest.mark.parametrize("prefix", sorted(_SHAPES_OF))
def test_key_is_found_among_any_number_of_dashes(prefix, dashes):
    rest = {b"ya29": b".", b"xox": b"b-"}.get(prefix, b"")
    scan = CredentialScan("text/plain")
    scan.feed(b"some-words " + b"- " * dashes + prefix + rest + b"ABCDEFGH23456789ABCDEFGH" + b" -" * dashes)
    scan.finish()
    assert scan.found
