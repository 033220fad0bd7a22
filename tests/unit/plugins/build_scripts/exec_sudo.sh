#!/bin/bash
cd "$CLONE"
exec sudo docker build -t openclaw:local .
