#!/bin/bash
set -e
printf '#!/bin/sh\nset -e\ncd "$CLONE"\ndocker build -t openclaw:local .\n' > "$HOME/docker-build.sh"
sh "$HOME/docker-build.sh"
