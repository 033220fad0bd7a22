#!/bin/sh
# Run the policy's test cases with the proxy's own command.
docker exec openclaw-proxy egress policy test /config/policy-cases.yml 2>&1
