#!/bin/bash
docker build -t openclaw:local "$CLONE"
