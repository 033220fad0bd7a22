#!/bin/sh
# Check that the spool contains exactly one record of the request that the check llm-request sent.
for _ in 1 2 3 4 5; do
  found=$(docker exec openclaw-proxy egress records --json --host "$LLM_HOST" | grep -c "egress-verify=$RUN_ID") && break
  sleep 1
done
echo "$found record(s) of the request in the spool"; test "$found" = 1
