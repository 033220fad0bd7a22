#!/usr/bin/env bash
# Resolve the requirements again: first the run-time lock that the image installs, then the developers' lock, which
# builds on it.
set -euo pipefail
compile=(.venv/bin/uv pip compile --quiet --universal --generate-hashes --python-version 3.12 --no-header --upgrade)
(cd files/addon && ../../"${compile[0]}" "${compile[@]:1}" pyproject.toml -o requirements.txt)
(cd requirements && ../"${compile[0]}" "${compile[@]:1}" dev.in -o dev.txt && ../"${compile[0]}" "${compile[@]:1}" galaxy.in -o galaxy.txt && echo uv | ../"${compile[0]}" "${compile[@]:1}" - -o uv.txt)
