#!/bin/bash
set -e
cat > "$HOME/docker-lib.sh" <<'EOF'
build_gateway() { docker build -t "$1" "$CLONE"; }
EOF
. "$HOME/docker-lib.sh"
build_gateway openclaw:local
