"""Check that OpenClaw has no other proxy. Its settings of channels hold tokens, so print only names of settings."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

ours = os.environ["PROXY_URL"].rstrip("/")


def run(*words):
    """Run a command in a container. Return its exit status, standard output and standard error."""
    done = subprocess.run(["docker", "exec", *words], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return done.returncode, done.stdout.decode(errors="replace").strip(), done.stderr.decode(errors="replace").strip()


def last_object(text):
    """Return the JSON object at the end of a command's output, after any log lines. Return None if there is none."""
    if text == "null":
        return {}
    at = text.find("{")
    while at >= 0:
        try:
            return json.loads(text[at:])
        except ValueError:
            at = text.find("{", at + 1)
    return None


def settings(section):
    """Return this section of OpenClaw's settings, or an empty dict if it is not set. Exit if it cannot be read."""
    words = ["--user", os.environ["OPENCLAW_USER"], os.environ["GATEWAY"], *os.environ["OPENCLAW"].split()]
    status, out, error = run(*words, "config", "get", section, "--json")
    found = last_object(out)
    if status == 0 and isinstance(found, dict) and not isinstance(found.get("error"), dict):
        return found
    reported = found.get("error") if isinstance(found, dict) else None
    message = str(reported.get("message")) if isinstance(reported, dict) else out + error
    # Match the whole phrase, because other errors also contain the word "unset", such as the error for a secret without
    # a value.
    if status != 0 and (f"unset: {section}" in message or f"path not found: {section}" in message):
        return {}
    # Do not print the output, because it may contain tokens.
    sys.exit(
        f"could not be checked: `openclaw config get {section} --json` ended with {status} and printed no settings"
    )


def proxies(node, path):
    """Yield the paths of settings that name another proxy."""
    for name, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        if name in ("proxy", "proxyUrl") and isinstance(value, str) and value.rstrip("/") not in ("", ours):
            yield f"{path}.{name}"
        yield from proxies(value, f"{path}.{name}")


status, value, error = run(os.environ["GATEWAY"], "sh", "-c", 'echo "OPENCLAW_PROXY_URL=${OPENCLAW_PROXY_URL:-}"')
name, _, value = value.partition("=")
if status != 0 or name != "OPENCLAW_PROXY_URL":
    sys.exit(f"could not be checked: {os.environ['GATEWAY']} is not running: {error}")
if value.rstrip("/") not in ("", ours):
    sys.exit("OPENCLAW_PROXY_URL is set to another proxy")
sections = ("proxy", "channels")
# Read both sections at the same time, because OpenClaw's command line takes seconds to start.
with ThreadPoolExecutor() as pool:
    reading = {section: pool.submit(settings, section) for section in sections}
found = [path for section, read in reading.items() for path in proxies(read.result(), section)]
if found:
    sys.exit(", ".join(found) + " names another proxy")
print("no other proxy in OPENCLAW_PROXY_URL, proxy.proxyUrl and channels.*.proxy")
