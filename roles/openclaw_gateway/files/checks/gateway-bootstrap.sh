#!/bin/sh
# Check that the gateway's container contains the deployed bootstrap.
inside=$(docker exec "$GATEWAY" sha256sum "$BOOTSTRAP" 2>&1) || { echo "$inside"; exit 1; }
outside=$(sha256sum "$CONFIG_DIR/proxy-bootstrap.cjs")
echo "${inside%% *}"; test "${inside%% *}" = "${outside%% *}"
