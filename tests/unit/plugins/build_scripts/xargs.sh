#!/bin/bash
set -e
printf '%s\n' local latest | xargs -I{} docker build -t openclaw:{} "$CLONE"
