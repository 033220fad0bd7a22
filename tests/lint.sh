#!/usr/bin/env bash
# Every check that reads the code without running it. Ends at the first that fails, after naming it.
set -euo pipefail
step() {
  echo "lint: $1" >&2
  shift
  "$@" || { echo "lint: FAILED: $*" >&2; exit 1; }
}
mapfile -t scripts < <(git ls-files '*.sh' molecule/lab/lab .ci/run ':!tests/unit/plugins/golden' 2>/dev/null | xargs -r ls -d 2>/dev/null)
step "ruff" ruff check --quiet files plugins tests molecule
step "ruff format" ruff format --quiet --check files plugins tests molecule
step "mypy (strict)" mypy --no-error-summary
step "import-linter" env PYTHONPATH=files/addon lint-imports --no-logo pyproject.toml
step "yamllint" yamllint --strict .
step "ansible-lint (production)" ansible-lint --offline -q --profile production
if command -v shellcheck >/dev/null; then
  step "shellcheck" shellcheck "${scripts[@]}"
else
  echo "lint: shellcheck is not installed: bash -n instead (apt-get install shellcheck)" >&2
  for script in "${scripts[@]}"; do step "bash -n $script" bash -n "$script"; done
fi
