#!/bin/bash
set -o noclobber -e
umask 077
docker build -t openclaw:local "$CLONE"
