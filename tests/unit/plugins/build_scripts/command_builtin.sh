#!/bin/bash
set -e
cd "$CLONE"
command docker build -t openclaw:local .
