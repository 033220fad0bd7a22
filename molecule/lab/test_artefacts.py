"""Tests of the lab's artefacts: the wheels build with an empty cache, and file names contain versions."""

import os
import re
import subprocess
from pathlib import Path

LAB = Path(__file__).resolve().parent


def test_wheels_of_the_lock_are_built_with_an_empty_cache(tmp_path):
    done = subprocess.run(
        ["bash", "-c", "set -euo pipefail; . ./artefacts.sh; wheels"],
        cwd=LAB, env=os.environ | {"XDG_CACHE_HOME": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    directory = Path(done.stdout.strip())
    assert directory.is_relative_to(tmp_path)
    found = {re.split(r"-\d", file.name)[0].lower().replace("_", "-") for file in directory.glob("*.whl")}
    assert {"mitmproxy", "opentelemetry-sdk", "typer", "pydantic"} <= found


def test_name_of_each_artefact_contains_its_version():
    text = (LAB / "artefacts.sh").read_text()
    for version in ("OPENCLAW_VERSION", "NODE_VERSION", "VICTORIALOGS_VERSION"):
        assert re.search(rf"\$CACHE/\S*\${version}", text), f"{version} is not in the name of a cached file"
