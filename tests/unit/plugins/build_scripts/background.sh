#!/bin/bash
docker build -t openclaw:a "$CLONE" &
first=$!
docker build -t openclaw:b "$CLONE" &
wait "$first" && wait $!
