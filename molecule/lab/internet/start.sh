#!/bin/sh
# Start the fake internet: its addresses, its DNS and its servers.
set -eu
for address in 198.51.100.11 198.51.100.12 198.51.100.66; do
  ip address add "$address/24" dev eth0
done
python3 /lab/rebinding.py --port 5353 &
dnsmasq --conf-file=/lab/dnsmasq.conf
python3 /lab/canary.py --address 198.51.100.66 --interface eth0 --log /var/log/canary.jsonl &
docker-registry serve /lab/registry.yml >/var/log/registry.log 2>&1 &
nginx -e /var/log/nginx-error.log -c /lab/nginx.conf
exec python3 /standins/llm_providers.py --listen 198.51.100.10 --port 443 --http-port 80 \
  --cert /tls/cert.pem --key /tls/key.pem --log /var/log/provider.jsonl
