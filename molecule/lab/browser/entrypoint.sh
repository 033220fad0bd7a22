#!/bin/bash
# The browser sandbox, in the manner of OpenClaw's own image, which is in no package: Chromium on loopback, and socat, which
# carries the port that OpenClaw publishes to it. With arguments, what Chromium does with these instead: `--dump-dom URL`.
# The proxy comes from the environment. OpenClaw's relay asks for a password, too; this one does not.
set -euo pipefail
# The root file system is read-only, /tmp is not.
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
