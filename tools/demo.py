"""`make demo`: demonstrate the product on this machine, without root, Docker or Loki.

The demo starts a fake provider, and `egress run` without a destination for records. The official SDKs call the provider
through the gateway's listener, and class `browser` requests an ordinary site. The proxy refuses a request of class
`sandbox`, and only reports one of class `build`. With LIVE=1 and ANTHROPIC_API_KEY, the Anthropic calls go to the real
provider. At the end the demo opens the web page. With KEEP=1, the page stays open until Ctrl-C. The demo exits with 1
if any step fails.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import anthropic
import httpx2 as httpx
import openai
from rich.console import Console

from tests.support.llm_providers import LLMProviders
from tests.support.proxy_process import ADDON, RunningProxy
from tests.support.ui_process import RunningUI

DIRECTORY = Path("build/demo")
HELLO = [{"role": "user", "content": "Say hello in five words."}]
WEATHER = {
    "name": "get_weather",
    "description": "Return the weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
AGENT = [
    {"role": "user", "content": "Compare the weather in Oslo and Paris."},
    {
        "role": "assistant",
        "content": [
            {"type": "text", "text": "I look up both cities."},
            {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Oslo"}},
        ],
    },
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "rain, 7 °C"}]},
]
LIVE = os.environ.get("LIVE") == "1"
KEEP = os.environ.get("KEEP") == "1"
MODEL = os.environ.get("LIVE_MODEL", "claude-haiku-4-5") if LIVE else "claude-opus-5"
KEY = os.environ.get("ANTHROPIC_API_KEY", "") if LIVE else "sk-ant-api03-demo-key-that-must-not-be-kept"

console = Console(highlight=False)


class DemoError(Exception):
    """Error of a failed step. The text contains the expectation and the actual result."""


def expect(holds: object, otherwise: str) -> None:
    """Raise DemoError with the text ``otherwise`` unless the condition holds."""
    if not holds:
        raise DemoError(otherwise)


def step(about: str, do: Callable[[], str]) -> None:
    """Run one step. Print its action, result and duration."""
    began = time.monotonic()
    result = do()
    console.print(f"  [green]✓[/] {about} [dim]{time.monotonic() - began:5.2f} s[/]  {result}", soft_wrap=True)


def egress(proxy: RunningProxy, *words: str, expected: int = 0) -> str:
    """Run the `egress` command on the demo's spool. Return its output."""
    environment = proxy.environment | {"COLUMNS": str(max(console.width, 160))}
    done = subprocess.run(
        [sys.executable, "-m", "openclaw_egress", *words], env=environment, capture_output=True, text=True, check=False
    )
    expect(done.returncode == expected, f"egress {' '.join(words)} exited with {done.returncode}: {done.stderr}")
    return done.stdout


def anthropic_calls(proxy: RunningProxy, http: httpx.Client) -> None:
    """Make a plain, a streamed and a failing call with Anthropic's own SDK."""
    base_url = None if LIVE else proxy.url("api.anthropic.com")
    claude = anthropic.Anthropic(api_key=KEY, base_url=base_url, http_client=http, max_retries=0)

    def plain() -> str:
        answer = claude.messages.create(model=MODEL, max_tokens=50, messages=HELLO)
        return f"{answer.usage.input_tokens} tokens in, {answer.usage.output_tokens} out"

    def streamed() -> str:
        with claude.messages.stream(model=MODEL, max_tokens=50, messages=HELLO) as stream:
            pieces = list(stream.text_stream)
        return f"{len(pieces)} pieces of text"

    def failing() -> str:
        try:
            claude.messages.create(model="fail-529", max_tokens=50, messages=HELLO)
        except anthropic.APIStatusError as error:
            return f"refused by the provider with {error.status_code}, as expected"
        raise DemoError("a call that the provider refused was reported as a success")

    def with_tool() -> str:
        known = {"model": MODEL if LIVE else "tools", "max_tokens": 200, "system": "Answer in one sentence."}
        answer = claude.messages.create(**known, tools=[WEATHER], messages=AGENT)
        calls = [part.id for part in answer.content if part.type == "tool_use"]
        results = [{"type": "tool_result", "tool_use_id": call, "content": "sun, 11 °C"} for call in calls]
        turns = [
            {"role": "assistant", "content": answer.content},
            {"role": "user", "content": results or "Which city is warmer?"},
        ]
        claude.messages.create(**known, tools=[WEATHER], messages=[*AGENT, *turns])
        return f"2 turns, the first with {len(calls)} tool calls"

    step("Anthropic SDK, a message", plain)
    step("Anthropic SDK, a streamed message", streamed)
    step("Anthropic SDK, a failed call", failing)
    step("Anthropic SDK, turns of an agent with a tool", with_tool)


def openai_calls(proxy: RunningProxy, http: httpx.Client) -> None:
    """Call Chat Completions and Responses with OpenAI's own SDK."""
    gpt = openai.OpenAI(api_key=KEY, base_url=proxy.url("api.openai.com", "/v1"), http_client=http, max_retries=0)

    def chat() -> str:
        answer = gpt.chat.completions.create(model="gpt-6", messages=HELLO)
        expect(answer.usage, "no usage was returned")
        return f"{answer.usage.prompt_tokens} tokens in, {answer.usage.completion_tokens} out"

    def streamed() -> str:
        options = {"include_usage": True}
        chunks = gpt.chat.completions.create(model="gpt-6", messages=HELLO, stream=True, stream_options=options)
        return f"{len(list(chunks))} chunks"

    def response() -> str:
        return f"{len(list(gpt.responses.create(model='gpt-6', input='hello', stream=True)))} events"

    step("OpenAI SDK, a chat completion", chat)
    step("OpenAI SDK, a streamed chat completion", streamed)
    step("OpenAI SDK, a streamed response", response)


def classes(proxy: RunningProxy, providers: LLMProviders) -> None:
    """Show which requests the policy allows, refuses or reports for each class."""

    def browser() -> str:
        # Trust only the site's own CA. A response then proves that the proxy did not decrypt the tunnel.
        with proxy.client("browser", ca=providers.ca_file) as http:
            expect(http.get(proxy.url("www.example.com", "/")).status_code == 200, "the browser's class was refused")
        return "tunnelled, not decrypted"

    def sandbox() -> str:
        with proxy.client("sandbox") as http:
            answer = http.get(f"http://www.example.com:{providers.http_port}/", headers={"accept": "application/json"})
        expect(answer.status_code == 403, f"the sandbox's class got {answer.status_code}")
        return f"403: {answer.json()['error']['reason']}"

    def build() -> str:
        with proxy.client("build") as http:
            answer = http.get(f"http://packages.example.com:{providers.http_port}/")
        expect(answer.status_code == 200, f"the build's class got {answer.status_code}")
        return "allowed, and reported, because its policy is not enforced yet"

    step("browser class, an ordinary site", browser)
    step("sandbox class, the same site", sandbox)
    step("build class, a site without a rule", build)


def records(proxy: RunningProxy) -> None:
    """Show records, usage and policy with the `egress` command. Check that no API key is on the disk."""
    console.rule("egress records", align="left")
    console.print(egress(proxy, "records"), end="", markup=False, soft_wrap=True)
    rows = proxy.exchanges()
    expect(len(rows) == 8, f"expected 8 recorded exchanges, found {len(rows)}")
    expect(len(proxy.denials()) == 2, "the refusal or the report was not recorded")
    shown = next(row for row in rows if row.stream)
    console.rule(f"egress show {shown.id[:8]}", align="left")
    text = egress(proxy, "show", shown.id[:8])
    console.print(text, end="", markup=False, soft_wrap=True)
    expect("[redacted]" in text, "the API key is not redacted in the record")
    for file in proxy.directory.rglob("*"):
        if file.is_file():
            expect(KEY.encode() not in file.read_bytes(), f"the key is in {file}")
    console.rule("egress usage", align="left")
    text = egress(proxy, "usage")
    console.print(text, end="", markup=False, soft_wrap=True)
    expect("cost USD" in text, "the usage has no cost")
    console.rule("egress policy explain sandbox https://www.example.com", align="left")
    console.print(egress(proxy, "policy", "explain", "sandbox", "https://www.example.com", expected=1), end="")


def show_page(proxy: RunningProxy) -> None:
    """Start the web page, and print its address. With KEEP=1, serve it until Ctrl-C."""
    with RunningUI(proxy.directory / "state", proxy.environment) as page:
        shown = page.get("/").text.count('scope="row"')
        expect(shown == 11, f"the page shows {shown} rows instead of 10 records and a template")
        console.rule("egress ui", align="left")
        console.print(f"  {page.address}", soft_wrap=True)
        if KEEP:
            console.print("  the web page stays open until you press Ctrl-C")
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()
            # Ignore another Ctrl-C, so that it cannot interrupt the clean-up.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        else:
            console.print("  the web page is closed; to keep it open, run `KEEP=1 make demo`")


def next_commands(proxy: RunningProxy) -> None:
    """Print commands that the reader can try next."""
    command = ".venv/bin/egress"
    console.rule("now try", align="left")
    console.print(f"  export EGRESS_STATE_DIR={DIRECTORY}/state EGRESS_POLICY_FILE={proxy.policy_file}", soft_wrap=True)
    for words in (
        "records --status 4xx",
        "records --model 'claude-*' --json",
        f"show {proxy.exchanges()[0].id[:8]} --json",
        "tail",
        "usage --by class --by status",
        "policy explain browser https://www.example.com",
    ):
        console.print(f"  {command} {words}")


def main() -> int:
    """Run the demo. Return the exit code."""
    if LIVE and not KEY:
        console.print("demo: LIVE=1 needs ANTHROPIC_API_KEY; without LIVE=1 the demo uses a fake provider")
        return 2
    began = time.monotonic()
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    DIRECTORY.mkdir(parents=True)
    console.print("starting a fake provider, and `egress run` with the local store …")
    with LLMProviders(http_port=0) as providers:
        proxy = RunningProxy(DIRECTORY, [providers.port, providers.http_port or 0], providers.ca_file or Path())
        if LIVE:
            text = proxy.policy_file.read_text()
            proxy.policy_file.write_text(text.replace("resolve: {api.anthropic.com: 127.0.0.1, ", "resolve: {"))
        try:
            with proxy:
                with proxy.client() as http:
                    anthropic_calls(proxy, http)
                    openai_calls(proxy, http)
                classes(proxy, providers)
                records(proxy)
                next_commands(proxy)
                console.print(f"demo: done in {time.monotonic() - began:.1f} s")
                show_page(proxy)
        except (DemoError, RuntimeError, httpx.HTTPError, anthropic.APIError, openai.APIError) as error:
            console.print(f"[red]✗ {type(error).__name__}: {error}[/]\nthe proxy's log is in {proxy.log_file}")
            return 1
    return 0


if __name__ == "__main__":
    expect(ADDON.is_dir(), f"{ADDON} is missing")
    sys.exit(main())
