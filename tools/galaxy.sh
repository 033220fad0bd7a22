#!/usr/bin/env bash
# Build the collection's artifact and check it with galaxy-importer, which Galaxy runs on every upload.
# The first run needs PyPI. The script needs no Docker and no root.
set -euo pipefail
cd "$(dirname "$0")/.."
environment=${XDG_CACHE_HOME:-$HOME/.cache}/openclaw-egress/galaxy-$(sha256sum requirements/galaxy.txt | cut -c-12)
if [[ ! -e $environment/complete ]]; then
  rm -rf "$environment"
  .venv/bin/python -m venv "$environment"
  .venv/bin/uv pip install --quiet --python "$environment/bin/python" --require-hashes -r requirements/galaxy.txt
  touch "$environment/complete"
fi
export PATH="$environment/bin:$PATH"
unset ANSIBLE_COLLECTIONS_PATH
rm -rf build/galaxy
mkdir -p build/galaxy
ansible-galaxy collection build --output-path build/galaxy >/dev/null
cd build/galaxy
python -m galaxy_importer.main ./openclaw-egress-*.tar.gz 2>&1 | tee importer.log
# Search the log for errors, because the importer exits with 0 even if its linters report some.
if grep -E '^(WARNING|ERROR)' importer.log >/dev/null; then
  echo "galaxy: galaxy-importer reports warnings or errors, see above" >&2
  exit 1
fi
grep -q 'Importer processing completed successfully' importer.log
