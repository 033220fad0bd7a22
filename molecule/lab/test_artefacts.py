"""The lab rebuilds a missing artefact outside of the checkout: it does not depend on the cache."""

import os
import re
import subprocess
from pathlib import Path

LAB = Path(__file__).resolve().parent


def test_with_an_empty_cache_the_wheels_are_those_of_the_lock(tmp_path):
    done = subprocess.run(
        ["bash", "-c", "set -euo pipefail; . ./artefacts.sh; wheels"],
        cwd=LAB, env=os.environ | {"XDG_CACHE_HOME": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    directory = Path(done.stdout.strip())
    assert directory.is_relative_to(tmp_path)
    found = {re.split(r"-\d", file.name)[0].lower().replace("_", "-") for file in directory.glob("*.whl")}
    assert {"mitmproxy", "opentelemetry-sdk", "typer", "pydantic"} <= found


def test_each_artefact_is_named_by_what_it_is_made_from():
    text = (LAB / "artefacts.sh").read_text()
    for version in ("OPENCLAW_VERSION", "NODE_VERSION", "VICTORIALOGS_VERSION"):
        assert re.search(rf"\$CACHE/\S*\${version}", text), f"{version} is not in the name of a cached file"
