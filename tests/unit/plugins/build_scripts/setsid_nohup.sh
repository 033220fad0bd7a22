#!/bin/bash
cd "$CLONE"
nohup setsid --wait docker build -t openclaw:local . > "$HOME/build.log" 2>&1
