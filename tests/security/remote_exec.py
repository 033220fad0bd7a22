"""Functions that run :mod:`tests.security.inside` in a remote Python without the project: they send its source."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.security.inside import (
    addresses,
    controls,
    core,
    frames,
    http,
    load,
    local,
    names,
    records,
    sockets,
    tls,
    tls_clienthello,
    wire,
)
from tests.security.inside.core import REGISTRY, Knowledge, Technique
from tests.support.docker_exec import completed

MODULES = (core, sockets, tls_clienthello, wire, names, http, addresses, tls, local, load, records, controls, frames)
"""The modules of :mod:`tests.security.inside`. Each imports only modules that precede it."""

_UNPACK = """
import json, sys, types
parcel = json.load(sys.stdin)
for name, source in parcel["modules"]:
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(source, name, "exec"), module.__dict__)
sys.modules[parcel["main"]].main(parcel)
"""

LONGEST = 900.0
"""Timeout in seconds for all techniques in one test location."""


def run_inside(python: Sequence[str], module: Any, knowledge: Knowledge, **more: Any) -> list[Any]:
    """Run ``module.main`` in the Python that the command ``python`` starts. Return the JSON values that it printed.

    Raises:
        RuntimeError: Python exited with an error; the text contains its output.
    """
    parcel = {
        "modules": [(one.__name__, Path(one.__file__ or "").read_text()) for one in MODULES],
        "main": module.__name__,
        "knowledge": dataclasses.asdict(knowledge),
        **more,
    }
    done = completed((*python, "-c", _UNPACK), input=json.dumps(parcel), timeout=LONGEST)
    if done.returncode:
        output = (done.stdout + done.stderr)[-2000:]
        raise RuntimeError(f"{' '.join(python)} ended with {done.returncode}: {output}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def attack(python: Sequence[str], knowledge: Knowledge, tokens: dict[str, str]) -> list[dict[str, Any]]:
    """Run the techniques in ``tokens``. Return their outcomes; see :func:`tests.security.inside.core.outcome`."""
    return run_inside(python, core, knowledge, tokens=tokens)


def answers(python: Sequence[str], knowledge: Knowledge, host: str, path: str = "/", seconds: float = 0) -> list[str]:
    """Send requests to a host through the listener of a test location. Return the status codes or errors."""
    (found,) = run_inside(python, controls, knowledge, host=host, path=path, seconds=seconds)
    return list(found)


def techniques(place: str, *, alone: bool) -> list[Technique]:
    """Return the techniques for a test location: if ``alone``, those that must run alone; if not, all others."""
    return [found for found in REGISTRY.techniques.values() if place in found.places and found.alone == alone]
