#!/bin/bash
set -e
docker build -t squid-cache:1 "$CLONE/extras/squid"
docker build -t openclaw:local "$CLONE"
