#!/bin/sh
# Print the name of each deployed gateway of openclaw_gateway_instances, and `/single` if the host's single gateway is deployed.
# Usage: deployed-gateways.sh STATE_DIR COMPOSE_FILE
set -eu
for file in "$1"/manifest-*.json; do
  [ -e "$file" ] || continue
  name=${file##*/manifest-}
  echo "${name%.json}"
done
if grep -qs 'BEGIN openclaw.egress: openclaw-gateway$' "$2"; then echo /single; fi
