#!/bin/bash
cd "$CLONE"
docker build -t openclaw:local .