#!/bin/bash
set -e
docker build -t openclaw:local https://github.com/openclaw/openclaw.git#main
