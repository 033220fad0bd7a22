#!/usr/bin/env bash
# Run the contract tests against the Loki at LOKI_URL if it is set, otherwise against the Loki fake. If LAB_LOKI_IMAGE
# is set (such as grafana/loki:3.5.0), start this image on loopback, test it, and remove it afterwards.
set -euo pipefail
cd "$(dirname "$0")/../../.."
if [[ -n ${LAB_LOKI_IMAGE:-} ]]; then
  container=$(docker run --detach --publish 127.0.0.1::3100 "$LAB_LOKI_IMAGE")
  trap 'docker rm --force "$container" >/dev/null' EXIT
  LOKI_URL=http://$(docker port "$container" 3100/tcp | head -n 1)
  export LOKI_URL
  echo "contract: waiting for $LAB_LOKI_IMAGE at $LOKI_URL (a Loki takes 16 s) …" >&2
  for _ in {1..60}; do
    curl --silent --fail "$LOKI_URL/ready" >/dev/null && break
    sleep 2
  done
fi
.venv/bin/python -m pytest tests/contract/loki -rA "$@"
