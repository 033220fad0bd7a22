#!/bin/bash
docker build -t openclaw:local "$HOME/nothing" || exit 5
