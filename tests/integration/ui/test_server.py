"""Tests of `egress ui` as a process: access, headers, and pages of hostile records."""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from urllib.parse import urlsplit

import pytest
from prometheus_client import CollectorRegistry

from openclaw_egress.app.event_log import record_event
from openclaw_egress.observability import last_audit
from openclaw_egress.observability.health import HealthServer
from openclaw_egress.policy.loader import load_policy
from openclaw_egress.recording.records import DeniedRecord
from openclaw_egress.spool.writer import Spool
from tests.support.hostile_records import HIDDEN, TEMPLATE, TEXT, hostile_denial, hostile_exchange, write_hostile_spool
from tests.support.ui_process import RunningUI

PAGES = [
    "/",
    "/?event=denied",
    f"/?class={'%22%3E%3Cscript%3E'}",
    "/records/1",
    "/records/1/session",
    "/records/2",
    "/records/3",
    "/denials",
    "/policy",
    "/usage",
    "/health",
    "/usage?since=x",
    "/denials?since=x",
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningUI]:
    state = tmp_path_factory.mktemp("state")
    write_hostile_spool(state)
    with RunningUI(state) as running:
        yield running


@pytest.mark.parametrize("path", [*PAGES, "/events", "/records/1/request", "/records/1.har"])
def test_nothing_is_shown_without_the_token(page, path):
    for cookie in ("", "egress_ui_1=x", page.cookie[:-1]):
        answer = page.get(path, Cookie=cookie)
        assert answer.status == 401 and "anthropic" not in answer.text and page.token not in answer.text


@pytest.mark.parametrize("path", [*PAGES, "/static/style.css", "/login", "/nothing"])
def test_another_host_name_is_refused(page, path):
    answer = page.get(path, Host="evil.example")
    assert answer.status == 421 and "anthropic" not in answer.text


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_request_from_another_site_receives_no_record(page, site):
    assert page.get("/", Sec_Fetch_Site=site).status == 401
    assert page.login(page.token, Sec_Fetch_Site=site).status == 401


@pytest.mark.parametrize("path", [*PAGES, "/static/style.css", "/static/live.js", "/nothing", "/records/1.har"])
def test_each_response_has_the_security_headers(page, path):
    headers = page.get(path).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "*" not in policy and "http" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store" and headers["X-Frame-Options"] == "DENY"
    assert "Server" not in headers


def test_login_sets_a_cookie_that_no_script_and_no_other_site_uses(page):
    answer = page.login(page.token, "/records/1")
    cookie = answer.headers["Set-Cookie"]
    assert (answer.status, answer.headers["Location"]) == (303, "/records/1")
    assert cookie.startswith(page.cookie) and "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert "expires" not in cookie.lower()


def test_wrong_token_sets_no_cookie(page):
    answer = page.login("wrong", "https://evil.example/")
    assert answer.status == 401 and "Set-Cookie" not in answer.headers and "evil.example" not in answer.text


def elements(text: str) -> list[tuple[str, dict[str, str | None]]]:
    """Return the names and attributes of the elements of a page."""
    found: list[tuple[str, dict[str, str | None]]] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: found.append((tag, dict(attributes)))  # type: ignore[method-assign]
    parser.feed(text)
    return found


def runs_or_leaves(tag: str, attributes: dict[str, str | None]) -> bool:
    """Return whether an element has inline script or style, embeds content, or links to another server."""
    if tag in ("img", "iframe", "object", "embed", "style", "base", "math") or "style" in attributes:
        return True
    if any(name.startswith("on") for name in attributes) or (tag == "script" and "src" not in attributes):
        return True
    addresses = [attributes[name] or "" for name in ("href", "src", "action") if name in attributes]
    return any(address.startswith("//") or address[:1] not in ("/", "#") for address in addresses)


@pytest.mark.parametrize("path", PAGES)
def test_hostile_records_become_text(page, path):
    text = page.get(path).text
    assert not [found for found in elements(text) if runs_or_leaves(*found)]
    assert not any(character in text for character in HIDDEN if not character.isprintable())
    if path in ("/", "/?event=denied", "/records/1", "/records/2", "/denials", "/usage"):
        assert "\\u202e" in text and "&lt;script&gt;" in text and TEMPLATE in text
        assert "62615533" not in text


def test_bodies_are_downloads_that_no_browser_shows(page):
    answer = page.get("/records/1/response")
    assert TEXT.split("\x00")[0][:40].replace('"', '\\"') in answer.text
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"].startswith("attachment")


@pytest.mark.parametrize(
    "path",
    ["/records/99", "/records/2/request", "/records/2.har", "/records/x", "/static/../access.py", "/static/no.css",
     "/records/999999999999999999", "/static/..%2fserver.py"],
)  # fmt: skip
def test_missing_page_has_status_404(page, path):
    assert page.get(path).status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_page_cannot_change_anything(page, method):
    assert page.request(method, "/records/1", headers={"Cookie": page.cookie}).status == 405


def test_denials_name_the_rule_that_would_allow_them(tmp_path):
    denial = DeniedRecord(class_name="sandbox", host="x.example", port=443, rule="default", code="no_rule", reason="no")
    with Spool(tmp_path / "spool.db", sync_seconds=None, local=True) as spool:
        spool.add(denial)
        spool.add(denial)
    with RunningUI(tmp_path) as page:
        text = page.get("/denials").text
        assert "<code>classes.sandbox.allow: {host: x.example, ports: [443]}</code>" in text
        (link,) = re.findall(r'href="(/\?[^"]*)"', text)
        assert page.get(link.replace("&amp;", "&")).text.count('data-cell="host">x.example<') == 2


POLICY = """\
version: 1
inspect: [api.anthropic.com]
classes:
  gateway:
    listen: 8080
    action: enforce
    allow:
      - api.anthropic.com
      - other.example # \u202e <script>
    deny: [bad.example, worse.example]
    addresses: [{cidr: 10.0.0.2/32, ports: [3100]}]
  sandbox:
    listen: 8082
    action: report
    log_tunnels: true
    allow: [packages.example.com]
"""


def denial(rule: str, **more: object) -> DeniedRecord:
    known = {"class_name": "gateway", "host": "x.example", "port": 443, "code": "no_rule", "reason": "no"}
    return DeniedRecord(**known | {"rule": rule} | more)  # type: ignore[arg-type]


def uses_by_line(text: str) -> dict[int, str]:
    """Return the text that the page shows beside each line of the policy, by line number."""
    rows = re.findall(r'class="number">(\d+)</th><td>.*?</td><td class="wrap">(.*?)</td>', text)
    return {int(number): uses for number, uses in rows if uses}


def test_policy_shows_the_uses_of_each_rule(tmp_path):
    file = tmp_path / "policy.yml"
    file.write_text(POLICY)
    digest = load_policy(file, None).digest
    with Spool(tmp_path / "spool.db", sync_seconds=None, local=True) as spool:
        record_event(spool, "policy loaded", policy_digest="another")
        spool.add(denial("classes.gateway.deny[1]"))  # not counted: another policy was in force
        record_event(spool, "policy loaded", policy_digest=digest)
        for number in range(3):
            times = {"begin_ns": time.time_ns(), "end_ns": time.time_ns(), "first_chunk_ns": None}
            rule = "classes.gateway.allow[0]"
            spool.add(hostile_exchange(f"{number:032x}", class_name="gateway", rule=rule, **times))
        record_event(spool, "policy loaded", policy_digest=digest)  # The proxy was restarted with the same policy.
        spool.add(denial("classes.gateway.deny[0]", count=40, summary=True))
        spool.add(denial("classes.gateway.deny[0]"))
        spool.add(denial("default"))
        spool.add(denial("classes.sandbox.allow[0]", class_name="sandbox", enforced=False))
    with RunningUI(tmp_path, {**os.environ, "EGRESS_POLICY_FILE": str(file)}) as page:
        text = page.get("/policy").text
        assert digest in text and "because the policy was loaded at that time" in text
        assert uses_by_line(text) == {
            8: "gateway.allow[0]: allowed 3",
            9: "gateway.allow[1]: no record, because log_tunnels is off",
            10: "gateway.deny[0]: refused 41<br>gateway.deny[1]: never used",
            16: "sandbox.allow[0]: reported 1",
        }
        assert '<td>gateway</td><th scope="row">default</th><td>refused 1</td>' in text
        assert "\\u202e" in text and "<script>" not in text
        file.write_text(POLICY.replace("enforce", "enfroce"))
        text = page.get("/policy").text
        assert "it is not valid" in text and "policy.yml:6" in text and not uses_by_line(text)
        file.write_text(POLICY + "# a comment\n")
        text = page.get("/policy").text
        assert "the proxy has not loaded this version of the policy" in text and not uses_by_line(text)


def test_usage_links_the_most_expensive_exchange(tmp_path):
    with Spool(tmp_path / "spool.db", sync_seconds=None, local=True) as spool:
        spool.close_exchange(hostile_exchange("01", cost_usd=0.25))
        spool.close_exchange(hostile_exchange("02", cost_usd=1.5, class_name="browser"))
    with RunningUI(tmp_path) as page:
        text = page.get("/usage").text
        assert "1.7500" in text and text.index("1.5000 USD") < text.index("0.2500 USD")
        assert "1.7500" not in page.get("/usage?class=browser").text


def test_health_shows_the_running_proxy_and_its_problems(tmp_path):
    report = {"ok": False, "problems": ["export: refused <b>"], "warnings": ["soon"], "ca": {"names": ["a.example"]}}
    with Spool(tmp_path / "spool.db", sync_seconds=None, local=True) as spool, health_server(report) as port:
        spool.checkpoint()
        result = last_audit.LastAudit(findings=1, time=time.time(), first=1, last=1, codes={"<i>changed": 1})
        last_audit.write(tmp_path, result)
        with RunningUI(tmp_path, {**os.environ, "EGRESS_HEALTH_PORT": str(port)}) as page:
            text = page.get("/health").text
    assert "running, with problems" in text and "export: refused &lt;b&gt;" in text and "soon" in text
    assert "a.example" in text and "line 1," in text
    assert "1 finding: 1 &lt;i&gt;changed" in text and "lines 1 to 1, " in text
    assert "Run <code>egress audit</code>" in text


def test_health_names_a_result_of_an_audit_that_cannot_be_read(tmp_path):
    write_hostile_spool(tmp_path)
    with RunningUI(tmp_path) as page:
        assert "No audit of this spool has ended yet" in page.get("/health").text
        (tmp_path / last_audit.FILE).write_text('{"findings": "<b>"}')
        text = page.get("/health").text
    assert "The last audit cannot be shown" in text and "last-audit.json" in text and "<b>" not in text


@contextlib.contextmanager
def health_server(report: dict[str, object]) -> Iterator[int]:
    """Serve a report as the running proxy does. Yield the port."""
    server = HealthServer(
        0, CollectorRegistry(), lambda: (True, {}), lambda: (bool(report["ok"]), {**report, "ok": report["ok"]})
    )
    server.start()
    try:
        yield server.port
    finally:
        server.stop()


def test_list_names_an_invalid_condition(page):
    answer = page.get("/?status=teapot&before=x")
    assert answer.status == 200 and "status: &#39;teapot&#39; is not valid; write 429, 4xx or 500-529" in answer.text


def test_new_records_arrive_as_events(tmp_path):
    with Spool(tmp_path / "spool.db", sync_seconds=None, local=True) as spool:
        spool.add(hostile_denial())
        with RunningUI(tmp_path) as page:
            connection = http.client.HTTPConnection(urlsplit(page.base).netloc, timeout=20)
            connection.request("GET", "/events?status=200", headers={"Cookie": page.cookie})
            response = connection.getresponse()
            assert response.headers["Content-Type"] == "text/event-stream"
            spool.add(hostile_denial())
            spool.close_exchange(hostile_exchange("0002"))
            assert response.readline() == b"id: 3\n"
            event = response.readline()
            assert b"\\u202e" in event and b"\n\n" not in event
            news = json.loads(event.removeprefix(b"data: "))
            assert ([line["seq"] for line in news["lines"]], news["newest"], news["left_out"]) == ([3], 3, 0)
            connection.close()


def test_missing_spool_causes_one_message(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "openclaw_egress", "ui"],
        env={**os.environ, "PYTHONPATH": "files/addon", "EGRESS_STATE_DIR": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and "the file does not exist yet" in done.stderr and "Traceback" not in done.stderr


def test_port_in_use_causes_one_message(page):
    port = str(urlsplit(page.base).port)
    done = subprocess.run(
        [sys.executable, "-m", "openclaw_egress", "ui", "--port", port],
        env=page.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and f"127.0.0.1:{port}" in done.stderr and "--port" in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_ends_it_without_a_traceback(tmp_path):
    write_hostile_spool(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "openclaw_egress", "ui", "--port", "0"],
        env={**os.environ, "PYTHONPATH": "files/addon", "EGRESS_STATE_DIR": str(tmp_path)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert "#token=" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20) == ("", "") and process.returncode == 0
