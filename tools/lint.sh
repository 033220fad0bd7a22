#!/usr/bin/env bash
# Run all static checks. Stop at the first check that fails, and print its name.
set -euo pipefail
step() {
  echo "lint: $1" >&2
  shift
  "$@" || { echo "lint: FAILED: $*" >&2; exit 1; }
}
mapfile -t scripts < <(git ls-files '*.sh' molecule/lab/lab .ci/run roles/openclaw_gateway/files/network_enforcement/firewall-entrypoint roles/openclaw_gateway/files/network_enforcement/ingress-forwarder ':!tests/unit/plugins/build_scripts' ':!tests/unit/plugins/earlier_release.sh' 2>/dev/null | xargs -r ls -d 2>/dev/null)
# ansible-lint takes longer than all other checks together and uses one CPU core, so run it in parallel with them.
later=$(mktemp)
ansible-lint --offline -q --profile production >"$later" 2>&1 &
lint=$!
trap 'kill "$lint" 2>/dev/null || true; rm -f "$later"' EXIT
# Store mypy's cache outside of the checkout, so that a clean checkout can use it too. The cache cannot be stale, because mypy
# compares the sources.
export MYPY_CACHE_DIR=${XDG_CACHE_HOME:-$HOME/.cache}/openclaw-egress/mypy
step "ruff" ruff check --quiet files plugins roles tests tools molecule
step "ruff format" ruff format --quiet --check files plugins roles tests tools molecule
step "mypy (strict)" mypy --no-error-summary
step "mypy (strict), dashboards" mypy --no-error-summary --package tools.monitoring
# Check the plugins under the collection's name, because they import each other by that name.
step "mypy (strict), plugins" bash -c 'cd collections && MYPYPATH=. mypy --config-file ../tools/mypy-plugins.ini ansible_collections/openclaw/egress/plugins'
step "import-linter" env PYTHONPATH=files/addon lint-imports --no-logo pyproject.toml
step "yamllint" yamllint --strict .
step "shellcheck" shellcheck "${scripts[@]}"
step "codespell" codespell
step "deptry" bash -c "cd files/addon && deptry --no-ansi ."
step "antsibull-changelog" antsibull-changelog lint
# Skip rstcheck, because it only checks generated pages, and takes twenty seconds.
step "antsibull-docs" antsibull-docs lint-collection-docs --plugin-docs --skip-rstcheck .
finished() { wait "$lint" || { cat "$later" >&2; return 1; }; }
step "ansible-lint (production)" finished
