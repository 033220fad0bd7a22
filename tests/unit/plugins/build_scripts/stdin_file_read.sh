#!/bin/bash
# The gateway reads its Dockerfile from standard input.
sed 's/node/node/' "$CLONE/Dockerfile" | docker build -f - -t openclaw:local "$CLONE"
