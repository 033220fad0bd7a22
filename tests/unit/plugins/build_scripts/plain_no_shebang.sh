cd "$CLONE" && docker build -t openclaw:local .
