#!/bin/bash
set -e
docker build --build-arg 'A=it'"'"'s "so"' --build-arg "B=\$HOME
two lines" --label "" --secret id=t,src="$HOME/token" -t openclaw:local "$CLONE"
