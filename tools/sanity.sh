#!/usr/bin/env bash
# Run `ansible-test sanity` on the files that the collection's artifact contains, for each supported ansible-core.
#   tools/sanity.sh [VERSION…]     e.g. tools/sanity.sh 2.21; default: 2.19 2.20 2.21
# The script needs PyPI and Python 3.12 or 3.13, because ansible-core 2.19 does not run on 3.14. It needs no Docker and no root.
set -euo pipefail
cd "$(dirname "$0")/.."
(($#)) || set -- 2.19 2.20 2.21
python=$(.venv/bin/python -c 'import os, sys; print(os.path.realpath(sys._base_executable))')
release=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if [[ $release != 3.1[23] ]]; then
  echo "sanity: Python $release is not supported; run: make setup PYTHON=/path/to/python3.13" >&2
  exit 1
fi
cache=${XDG_CACHE_HOME:-$HOME/.cache}/openclaw-egress/sanity
tree=$PWD/build/sanity/ansible_collections/openclaw/egress

# Copy the tracked files, except those that `build_ignore` in galaxy.yml excludes from the artifact.
rm -rf build/sanity
mkdir -p "$tree" "$cache"
tracked() { git ls-files -z --cached --others --exclude-standard "$@"; }
{
  tracked ':!.*' ':!collections' ':!playbooks/collections' ':!molecule' ':!requirements' ':!tests' ':!tools' ':!Makefile' \
    ':!pyproject.toml'
  tracked 'tests/sanity/*.txt'
} | tar --null --files-from - --create --ignore-failed-read | tar --extract --directory "$tree"
# Skip pylint for the addon: it runs in the proxy's container and follows its own rules, which ruff (PL) and mypy check.
# An ignore file accepts no patterns, so generate one line for each file of the addon.
for ignored in "$tree"/tests/sanity/ignore-*.txt; do
  (cd "$tree" && find files/addon -name '*.py' -printf '%p pylint!skip\n') >>"$ignored"
done
# Create a Git repository for the copy. Otherwise ansible-test uses that of the checkout, where build/ is ignored.
git -C "$tree" init --quiet
git -C "$tree" add --all --force

failed=()
for version in "$@"; do
  environment=$cache/core-$version-python$release
  if [[ ! -e $environment/complete ]]; then
    rm -rf "$environment"
    "$python" -m venv "$environment"
    "$environment/bin/pip" install --quiet --disable-pip-version-check "ansible-core~=$version.0"
    touch "$environment/complete"
  fi
  # Provide a get_pip.py that installs the pip bundled with Python. Otherwise ansible-test downloads one from Ansible's server.
  home=$cache/home
  mkdir -p "$home/.ansible/test/cache"
  needed=$(sed -nE "s/^ +pip='([0-9.]+)',$/\1/p" \
    "$environment"/lib/python*/site-packages/ansible_test/_internal/python_requirements.py)
  printf 'import ensurepip\n\nensurepip.bootstrap()\n' >"$home/.ansible/test/cache/get_pip_${needed//./_}.py"
  echo "── sanity: ansible-core $version ──"
  began=$SECONDS result=passed
  # Use shellcheck from the environment of `make setup`, and all other programs from ansible-core's environment.
  (cd "$tree" && HOME=$home ANSIBLE_COLLECTIONS_PATH='' PATH="$environment/bin:$PATH:$OLDPWD/.venv/bin" \
    ansible-test sanity --local --requirements --python "$release" --color no) </dev/null || result=failed
  echo "── sanity: ansible-core $version: $result, $((SECONDS - began)) s ──"
  [[ $result == passed ]] || failed+=("$version")
done
if ((${#failed[@]})); then
  echo "sanity: failed for ansible-core ${failed[*]}" >&2
  exit 1
fi
