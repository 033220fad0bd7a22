#!/bin/bash
cd "$CLONE"
docker build -t openclaw:local .
status=$?
echo "docker said $status"
exit $status
