#!/bin/bash
set -e
cd "$CLONE"
time docker build -t openclaw:local .
