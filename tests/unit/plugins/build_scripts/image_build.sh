#!/bin/bash
set -e
docker --log-level error image build -t openclaw:local "$CLONE"
