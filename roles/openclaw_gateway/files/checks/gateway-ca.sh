#!/bin/sh
# Check that the gateway's container contains the current CA certificate.
inside=$(docker exec "$GATEWAY" sha256sum "$CA_INSIDE" 2>&1) || { echo "$inside"; exit 1; }
outside=$(sha256sum "$CA_FILE")
echo "${inside%% *}"; test "${inside%% *}" = "${outside%% *}"
