#!/bin/bash
set -e
printf 'docker-build:\n\t@docker build -t openclaw:local $$CLONE\n' > "$HOME/Makefile"
make -s -C "$HOME" docker-build
