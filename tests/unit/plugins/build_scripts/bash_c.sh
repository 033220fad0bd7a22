#!/bin/bash
set -e
bash -c 'cd "$CLONE" && docker build -t openclaw:local .'
