#!/bin/sh
# Check that the proxy variables are set. This runs in the gateway's container.
for name in HTTP_PROXY HTTPS_PROXY http_proxy https_proxy NO_PROXY no_proxy NODE_EXTRA_CA_CERTS NODE_USE_ENV_PROXY; do
  eval "value=\${$name:-}"
  # shellcheck disable=SC2154  # `eval` assigns the variable.
  test -n "$value" || { echo "$name is not set"; exit 1; }
done
echo "HTTPS_PROXY=$HTTPS_PROXY NO_PROXY=$NO_PROXY"
