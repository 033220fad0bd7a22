#!/bin/bash
cd "$CLONE" && docker build -t openclaw:local . && echo built || { echo failed; exit 3; }
