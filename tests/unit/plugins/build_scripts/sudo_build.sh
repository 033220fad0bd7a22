#!/bin/bash
set -e
cd "$CLONE"
sudo docker build -t openclaw:local .
sudo docker image ls
