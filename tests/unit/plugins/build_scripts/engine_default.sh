#!/usr/bin/env bash
: "${CONTAINER_ENGINE:=docker}"
exec "$CONTAINER_ENGINE" build -t openclaw:local "$CLONE"
