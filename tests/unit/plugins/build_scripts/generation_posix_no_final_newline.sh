#!/bin/sh
set -eu
cd "${CLONE:-/home/openclaw/openclaw}"
main() {
	cat <<-EOF
	docker build is about to start
	EOF
	timeout 600 docker build --no-cache --file=Dockerfile -t openclaw:local .
}
main "$@"
git checkout -- Dockerfile