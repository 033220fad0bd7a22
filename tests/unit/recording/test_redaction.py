"""Tests of redaction: it removes secrets, and leaves all other text unmodified."""

import hashlib
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_egress.recording.redaction import (
    MAX_URL_BYTES,
    REDACTED,
    clean_text,
    is_token_endpoint,
    key_fingerprint,
    redact_headers,
    redact_text,
    redact_url,
)

SECRET = "s3cr3t-Value_0123456789"


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "Proxy-Authorization",
        "WWW-Authenticate",
        "x-api-key",
        "X-Goog-Api-Key",
        "api-key",
        "Cookie",
        "Set-Cookie",
        "X-Amz-Security-Token",
        "X-Client-Secret",
        "X-Hub-Signature-256",
        "X-Credential-Id",
        "X-Password",
        "X-Passwd",
        "X-Passphrase",
        "Client-Assertion",
        "X-Jwt",
        "Sec-WebSocket-Protocol",
        "Sec-WebSocket-Key",
        "OpenAI-Organization-Auth",
    ],
)
def test_value_of_a_header_with_a_secret_name_is_redacted(name):
    assert redact_headers([(name, SECRET)]) == [(name, REDACTED)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("content-type", "application/json; charset=utf-8"),
        ("user-agent", "Anthropic/JS 0.60.0"),
        ("anthropic-version", "2023-06-01"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("date", "Tue, 24 Nov 2026 16:20:53 GMT"),
        ("x-request-id", "req_011CSHoEeqs5C35K2UUqR7Fy"),
    ],
)
def test_other_headers_stay_unmodified(name, value):
    assert redact_headers([(name, value)]) == [(name, value)]


def test_headers_keep_their_order_and_their_repetitions():
    headers = [("b", "1"), ("a", "2"), ("b", "3")]
    assert redact_headers(headers) == headers


@pytest.mark.parametrize(
    "value",
    [
        "https://example.com/cb?access_token=" + SECRET,
        "/relative?x=1&key=" + SECRET,
        "/callback#access_token=" + SECRET,
        "/callback;token=" + SECRET,
        "0; url=/callback#id_token=" + SECRET,
        f"https://user:{SECRET}@example.com/",
        f"Bearer {SECRET}",
        "sk-ant-" + SECRET,
    ],
)
def test_secret_inside_an_ordinary_header_is_redacted(value):
    assert SECRET not in redact_headers([("referer", value)])[0][1]


@pytest.mark.parametrize(
    "name",
    [
        "key", "KEY", "token", "access_token", "sig", "X-Amz-Signature", "X-Amz-Credential", "x-amz-security-token",
        "X-Goog-Signature", "api_key", "apikey", "api-key", "client_secret", "refresh_token", "password", "code",
        "%6bey", "k%65y", "%256bey", "X%2DAmz%2DSignature", "+key",
        "passphrase", "user_passwd", "passcode", "client_assertion", "device_code", "user_code", "code_verifier",
        "SAMLResponse", "private_key", "signing_key", "bearer", "user%5Bpassword%5D",
    ],
)  # fmt: skip
def test_secret_query_value_is_redacted_for_any_spelling_of_its_name(name):
    url = f"https://h.example/v1/x?alt=sse&{name}={SECRET}&n=1"
    assert redact_url(url) == f"https://h.example/v1/x?alt=sse&{name}={REDACTED}&n=1"


@pytest.mark.parametrize(
    "url",
    [
        f"https://h.example/?next={quote('https://o.example/?token=' + SECRET, safe='')}",
        f"https://h.example/?next={quote(quote('https://o.example/?token=' + SECRET, safe=''), safe='')}",
        f"https://h.example/?next=https://o.example/?token={SECRET}",
        f"https://h.example/?token%3D{SECRET}",
        f'https://h.example/?body={{"client_secret":"{SECRET}"}}',
        f"https://h.example/?body={quote('{"client_secret": "' + SECRET + '"}', safe='')}",
        f"https://h.example/?a=1;key={SECRET}",
        f"https://h.example/a;token={SECRET}/b?x=1",
        f"https://h.example/?key={SECRET};more",
        f"https://h.example/#access_token={SECRET}",
        f"https://h.example/?a=1#x=1&id_token={SECRET}",
        f"https://user:{SECRET}@h.example/",
        f"https://{SECRET}@h.example/?a=b",
        f"https://user:p@ss@{SECRET}@h.example/",
        f"https://h.example/keys/sk-{SECRET}",
    ],
)
def test_secret_in_an_unusual_part_of_a_url_is_redacted(url):
    assert SECRET not in redact_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://api.anthropic.com/v1/messages?beta=true",
        "https://h.example/?next=https://o.example/?page=1&time=12:30",
        "https://h.example/?filter=%7B%22model%22%3A%22m%22%7D",
        "https://h.example/?a=%zz&&=&b",
        "https://h.example/a%20b?q=x%3Dy#frag",
        "http://[2001:db8::1]:8080/?monkey=1&max_output=5",
        "",
        "not a url",
    ],
)
def test_url_without_secrets_is_unmodified(url):
    assert redact_url(url) == url


def test_a_long_url_is_cut_between_characters():
    cut = redact_url("https://h.example/?q=" + "é" * 10_000)
    assert len(cut.encode()) <= MAX_URL_BYTES
    assert cut.endswith("é…")


@pytest.mark.parametrize(
    "text",
    [
        f"Client closed connection before completing headers: b'GET / HTTP/1.1\\r\\nAuthorization: Bearer {SECRET}'",
        f"Unexpected data from server: b'set-cookie: id={SECRET}; Path=/'",
        f"Authorization: Basic {SECRET}\r\nHost: x",
        f'{{"api_key": "{SECRET}"}}',
        f"GET https://h.example/?key={SECRET} failed",
        f"password={SECRET}",
        f"the key sk-proj-{SECRET} was refused",
    ],
)
def test_secrets_in_a_log_message_are_redacted(text):
    assert SECRET not in redact_text(text)


def test_other_text_of_a_log_message_is_kept():
    text = redact_text("b'GET / HTTP/1.1\\r\\nCookie: a=b\\r\\nHost: api.openai.com\\r\\n'")
    assert text == f"b'GET / HTTP/1.1\\r\\nCookie: {REDACTED}\\r\\nHost: api.openai.com\\r\\n'"


@pytest.mark.parametrize(
    "headers",
    [
        [("Authorization", f"Bearer {SECRET}")],
        [("authorization", f"bearer   {SECRET}")],
        [("X-Api-Key", SECRET)],
        [("api-key", f" {SECRET} ")],
        [("x-goog-api-key", SECRET)],
        [("Authorization", ""), ("x-api-key", SECRET)],
    ],
)
def test_key_has_the_same_fingerprint_in_every_header(headers):
    assert key_fingerprint(headers) == hashlib.sha256(SECRET.encode()).hexdigest()[:12]


def test_missing_key_has_no_fingerprint():
    assert key_fingerprint([("content-type", "text/plain")]) is None


@pytest.mark.parametrize(
    ("host", "path"),
    [
        ("oauth2.googleapis.com", "/token"),
        ("console.anthropic.com", "/v1/oauth/token"),
        ("auth.openai.com", "/anything"),
        ("api.openai.com", "/v1/realtime/client_secrets"),
        ("api.openai.com", "/v1/realtime/sessions?x=1"),
        ("api.openai.com", "/v1/organization/admin_api_keys"),
        ("login.microsoftonline.com", "/tenant/oauth2/v2.0/token"),
        ("h.example", "/OAuth%2Ftoken/"),
        ("h.example", "//%256fauth//x"),
        ("h.example", "/token;jsessionid=1"),
        ("h.example", "/tOKEN"),
        ("h.example", "\\\\token"),
        ("h.example", "/access_token"),
        ("h.example", "/v1/getAccessToken"),
        ("h.example", "/sign-in"),
        ("h.example", "/device/code"),
        ("h.example", "/deviceauth/usercode"),
        ("h.example", "/connect/register/registration"),
        ("h.example", "/api/v1/keys"),
        ("h.example", "/v1/api-keys/1"),
        ("iamcredentials.googleapis.com", "/v1/projects/-/serviceAccounts/x:generateAccessToken"),
        ("generativelanguage.googleapis.com", "/v1alpha/auth_tokens"),
        ("api.openai.com", "/v1/organization/projects/p/service_accounts"),
        ("api.github.com", "/copilot_internal/v2/token"),
        ("api.anthropic.com", "/v1/oauth/revoke"),
        ("sts.eu-west-1.amazonaws.com", "/"),
        ("securetoken.googleapis.com", "/v1/x"),
        ("tenant.eu.auth0.com", "/x"),
    ],
)
def test_credential_endpoint_is_recognised(host, path):
    assert is_token_endpoint(host, path)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/messages", "/v1/messages/count_tokens", "/v1/chat/completions", "/v1/responses", "/", "",
        "/v1/responses/input_tokens", "/v1/embeddings", "/v1/files", "/v1/batches", "/tokenize", "/detokenize",
        "/v1beta/models/gemini-2.5-pro:countTokens", "/v1beta/models/secret-model:streamGenerateContent",
        "/openai/deployments/token-classifier/chat/completions", "/v1/models/text-token-1", "/v1/realtime",
        "/v1/organization/usage/completions", "/api/event_logging/batch", "/v1/keyboards", "/v1/author",
    ],
)  # fmt: skip
def test_model_endpoint_is_not_a_credential_endpoint(path):
    assert not is_token_endpoint("api.anthropic.com", path)


@pytest.mark.parametrize(
    ("text", "clean"),
    [("plain", "plain"), ("é", "é"), ("a\udcffb", "a\\xffb"), ("a\ud800b", "a\ufffd\ufffd\ufffdb")],
)
def test_text_becomes_valid_unicode(text, clean):
    assert clean_text(text) == clean


any_text = st.text(st.characters(codec=None, categories=None))


@given(any_text)
def test_any_cleaned_text_can_be_encoded_as_utf8(text):
    for made in (clean_text(text), redact_url(text), redact_text(text), redact_headers([(text, text)])[0][1]):
        made.encode()


@given(before=st.text("abc=&;?#%/", max_size=12), after=st.text("abc=&;?#%/", max_size=12))
def test_query_parameter_key_is_always_redacted(before, after):
    assert SECRET not in redact_url(f"https://h.example/?{before}&key={SECRET}&{after}")
