#!/bin/sh
# Check that the gateway's container contains the current CA certificates: the proxy's, and the operator's own.
inside=$(docker exec "$GATEWAY" sha256sum "$CA_INSIDE" 2>&1) || { echo "$inside"; exit 1; }
outside=$(sha256sum "$CA_FILE")
if test -n "$CA_DIGEST" && test "${outside%% *}" != "$CA_DIGEST"; then
  echo "$OWN_CA or the proxy's certificate was changed after site.yml wrote $CA_FILE"; exit 1
fi
echo "${inside%% *}"; test "${inside%% *}" = "${outside%% *}"
