#!/bin/sh
# Check the deployed policy with the proxy's own command.
docker exec openclaw-proxy egress policy check /config/policy.yml 2>&1
