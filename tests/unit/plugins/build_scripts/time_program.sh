#!/bin/bash
set -e
cd "$CLONE"
nice -n 5 env A=b timeout 60 docker build -t openclaw:local .
