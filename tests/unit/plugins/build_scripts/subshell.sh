#!/bin/bash
set -e
(cd "$CLONE" && docker build -t openclaw:local .)
