"""Recorder of `configurations.json`, the output of Docker Compose for each project in this folder.

    python tests/unit/plugins/compose_projects/record.py [COMPOSE] [NAME…]

COMPOSE is the name or path of the program `docker-compose`, which needs no Docker daemon here. In the recording,
/srv/openclaw replaces the path of the project.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[3]
sys.path.insert(0, str(ROOT / "collections"))

from ansible_collections.openclaw.egress.plugins.module_utils.dotenv import default_files  # noqa: E402


def configuration(
    compose: str, project: Path, case: dict[str, Any], *arguments: str, profiles: list[str]
) -> dict[str, Any] | None:
    """Return the output of `docker compose config` for the files that the role would use.

    If the command fails, print its error and return None.
    """
    files = [str(project / name) for name in case.get("files", ())] or default_files(str(project))
    command = [compose, "--project-directory", str(project), *(word for path in files for word in ("-f", path))]
    command += [word for profile in profiles for word in ("--profile", profile)]
    done = subprocess.run(
        [*command, "config", "--format", "json", *arguments],
        env={"PATH": os.environ["PATH"], "HOME": "/home/op", **case.get("shell", {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        print(f"{case['about']}\n  {' '.join(arguments)}: {done.stderr.strip().splitlines()[-1]}")
        return None
    found: dict[str, Any] = json.loads(done.stdout.replace(str(project), "/srv/openclaw"))
    return found


def both(compose: str, project: Path, case: dict[str, Any]) -> dict[str, Any]:
    """Return the uninterpolated and the interpolated configuration.

    For the interpolated one, activate the first profile of the gateway's service, as the role does.
    """
    raw = configuration(compose, project, case, "--no-interpolate", profiles=[])
    service = ((raw or {}).get("services") or {}).get(case.get("service", "openclaw-gateway")) or {}
    profiles = (service.get("profiles") or [])[:1]
    return {"uninterpolated": raw, "interpolated": configuration(compose, project, case, profiles=profiles)}


def record(compose: str, folder: Path) -> None:
    """Write `configurations.json` of one project. Its key `remedied` contains the configuration after the remedy."""
    case = yaml.safe_load((folder / "case.yml").read_text())
    with tempfile.TemporaryDirectory() as temporary:
        project = Path(temporary) / "openclaw"
        shutil.copytree(folder, project)
        found = both(compose, project, case)
        for name, old, new in case.get("remedy", {}).get("edit", ()):
            text = (project / name).read_bytes().decode()
            if old not in text:
                raise SystemExit(f"{folder.name}: {name} does not contain {old!r}, which the remedy should replace")
            (project / name).write_bytes(text.replace(old, new).encode())
        if "edit" in case.get("remedy", {}):
            found["remedied"] = both(compose, project, case)
    (folder / "configurations.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    program, *names = sys.argv[1:] or ["docker-compose"]
    for path in sorted(FOLDER.iterdir()):
        if path.is_dir() and path.name != "__pycache__" and (not names or path.name in names):
            record(program, path)
