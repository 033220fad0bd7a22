#!/bin/bash
# Start a browser sandbox like OpenClaw's own image, which is not available as a package: Chromium on loopback, and socat, which
# forwards the published port to it. If there are arguments, such as `--dump-dom URL`, only run Chromium with these arguments.
# The environment sets the proxy. Unlike OpenClaw's relay, socat requires no password.
set -euo pipefail
# Use a home directory in /tmp, because nothing else is writable.
export HOME=/tmp/openclaw-home
mkdir -p "$HOME"
cdp_port=${OPENCLAW_BROWSER_CDP_PORT:-9222}
flags=(
  --headless=new --no-sandbox --disable-setuid-sandbox --no-zygote --no-first-run --no-default-browser-check
  --disable-background-networking --disable-component-update --disable-sync --disable-breakpad --disable-crash-reporter
  --metrics-recording-only --disable-dev-shm-usage --disable-3d-apis --disable-gpu --disable-software-rasterizer
  --disable-extensions --renderer-process-limit=2 --password-store=basic --use-mock-keychain
)
if (($#)); then exec chromium "${flags[@]}" --user-data-dir="$(mktemp -d)" "$@"; fi
socat "TCP-LISTEN:$cdp_port,fork,reuseaddr${OPENCLAW_BROWSER_CDP_SOURCE_RANGE:+,range=$OPENCLAW_BROWSER_CDP_SOURCE_RANGE}" \
  "TCP:127.0.0.1:$((cdp_port + 1))" &
exec chromium "${flags[@]}" --user-data-dir="$HOME/.chrome" --remote-debugging-address=127.0.0.1 \
  --remote-debugging-port="$((cdp_port + 1))" about:blank
