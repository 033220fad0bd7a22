"""`make attack`: run every technique in every place of the lab; print a table and write build/attack.json.

Exits with 0 if all results are as expected. At enforcement level `network`, no bypass may succeed. At level
`application`, exactly the bypasses in tests/security/expected.py must succeed. At both levels, each class must reach
its allowed destinations. The lab must be deployed at the tested level, with the policy of molecule/classes.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.security import firewall, outside, siblings
from tests.security.expected import AT_APPLICATION
from tests.security.remote_exec import answers, attack, techniques
from tests.security.vantage_points import PROXY, Level, Place, places

type Row = dict[str, Any]

OUTPUT = Path("build/attack.json")


def row(place: Place, name: str, value: int, unit: str, goal: str, met: bool, detail: str = "") -> Row:
    """Return one row for the table of results."""
    return {
        "name": f"{place.name}: {name}", "class": place.class_name, "value": value, "unit": unit, "goal": goal,
        "met": met, "detail": detail,
    }  # fmt: skip


def served(status: str) -> bool:
    """Return whether a status code came from the requested site and not from the proxy."""
    return status.isdigit() and int(status) not in (0, 403, 502, 503, 504)


def control(place: Place, token: str) -> list[Row]:
    """Check that a class reaches an allowed destination.

    For the gateway, also check that the proxy recorded the request, whose URL is unique because it ends in the token.
    """
    if place.control is None:
        return []
    host, path = place.control
    if place.name == "gateway":
        path += token
    (status,) = answers(place.python, place.knowledge, host, path)
    reached = served(status)
    rows = [row(place, f"reaches https://{host}/", int(reached), "answers", "1", reached, status)]
    if place.name == "gateway":
        kept = sum(path in record.get("url", "") for record in outside.records(host))
        rows.append(row(place, f"records of the request to https://{host}/", kept, "records", "1", kept == 1, path))
    return rows


def attacked(
    place: Place, level: Level, run: str, only: Collection[str] | None = None
) -> tuple[list[Row], dict[str, str]]:
    """Run every technique that may run in parallel. Then search the logs outside the proxy for evidence.

    Return one row for each technique, and the token of each technique.
    """
    chosen = [one for one in techniques(place.name, alone=False) if only is None or one.name in only]
    # Use only lowercase letters and digits, because a token is also used as a label in host names.
    tokens = {found.name: f"a{run}{place.name[:2]}{number:02x}" for number, found in enumerate(chosen)}
    before = outside.here()
    outcomes = {found["name"]: found for found in attack(place.python, place.knowledge, tokens)}
    # Retry techniques that did not complete. Keep an egress bypass found in the first attempt.
    if unfinished := {name: tokens[name] for name, one in outcomes.items() if one["broken"] and not one["reached"]}:
        outcomes |= {found["name"]: found for found in attack(place.python, place.knowledge, unfinished)}
    seen = outside.since(before)
    recorded = outside.recorded(place.knowledge.inspected)
    expected = AT_APPLICATION.get(place.name, frozenset()) if level == "application" else frozenset()
    rows = []
    for found in chosen:
        returned = outcomes[found.name]
        evidence = seen.evidence(found, place.name, tokens[found.name], place.knowledge.inspected, recorded)
        value = max(returned["reached"], len(evidence))
        goal = "1 or more" if found.name in expected else "0"
        met = (value > 0) == (found.name in expected) and not returned["broken"]
        detail = "; ".join([*evidence[:3], returned["detail"]])
        rows.append(row(place, found.name, value, f"bypasses in {returned['tries']} tries", goal, met, detail))
    if seen.missing:
        rows.append(
            row(place, "logs that the results depend on", len(seen.missing), "missing", "0", False, str(seen.missing))
        )
    return rows, tokens


def outcomes_of(place: Place, level: Level, run: str, only: Collection[str] | None) -> tuple[list[Row], dict[str, str]]:
    """Return the result of :func:`attacked`. If it raises an exception, return a row that reports the exception."""
    try:
        return attacked(place, level, run, only)
    except Exception as error:  # noqa: BLE001  (keep the results of the other locations)
        return [row(place, "the attack run", 1, "failures", "0", False, f"{type(error).__name__}: {error}")], {}


def loaded(place: Place, gateway: Place, run: str) -> list[Row]:
    """Run the load techniques one by one. At the same time send requests as the gateway, all of which must succeed."""
    host, path = gateway.control or ("", "")
    rows = []
    for number, found in enumerate(techniques(place.name, alone=True)):
        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(answers, gateway.python, gateway.knowledge, host, path, 10)
            (returned,) = attack(place.python, place.knowledge, {found.name: f"a{run}l{number}"})
            statuses = asking.result()
        bad = [status for status in statuses if not served(status)]
        detail = f"{returned['detail']}; {bad[:3]}" if bad else returned["detail"]
        met = not bad and not returned["broken"]
        rows.append(
            row(place, found.name, len(bad), f"of {len(statuses)} requests of the gateway failed", "0", met, detail)
        )
    return rows


def firewall_restored(gateway: Place) -> list[Row]:
    """Change the firewall rules from a privileged container. Check that the firewall entrypoint reverts each change."""
    rows = []
    for what, command in firewall.CHANGES.items():
        try:
            restored, detail = firewall.restored(command), "the changed rules were not restored"
        except Exception as error:  # noqa: BLE001  (keep the results of the other changes)
            restored, detail = False, f"{type(error).__name__}: {error}"
        rows.append(row(gateway, f"rules restored: {what}", int(restored), "of 1 change", "1", restored, detail))
    return rows


def everything(level: Level) -> list[Row]:
    """Run the positive controls, all techniques and the check for forged records, then the positive controls again."""
    run = secrets.token_hex(3)
    with places(level) as all_places:
        found = [place for place in all_places if level == "network" or place.name in AT_APPLICATION]
        rows, stray = _controls_and_attacks(found, level, run)
        gateway = next(place for place in found if place.name == "gateway")
        for place in found:
            rows += loaded(place, gateway, run)
        if level == "network":
            rows += firewall_restored(gateway)
            rows.append(_unexplained(gateway, stray))
        rows.append(_forged(gateway))
        return rows + _controls_after(found, run)


def everything_from_siblings(level: Level, only: Collection[str] | None = None) -> list[Row]:
    """Run the controls and techniques from a sibling container of each class. ``only`` selects techniques by name.

    Expect the results of the level ``network`` at both levels: no bypass may succeed.
    """
    run = secrets.token_hex(3)
    with siblings.places(level) as found:
        rows, stray = _controls_and_attacks(found, "network", run, only)
        pythons = {place.name: place.python for place in found} | {"bridge": siblings.on_the_bridge()}
        heard = siblings.heard_by_the_host(pythons, found[0].knowledge)
        rows += [
            row(place, "raw frames to the host", heard[place.name], "received", "0", not heard[place.name])
            for place in found
        ]
        control_heard = heard["bridge"]
        rows.append(
            row(found[0], "control: the host receives frames on a bridge", control_heard, "received", "1 or more",
                control_heard > 0)
        )  # fmt: skip
        return [*rows, _unexplained(found[0], stray), _forged(found[0]), *_controls_after(found, run)]


def _controls_and_attacks(
    found: list[Place], level: Level, run: str, only: Collection[str] | None = None
) -> tuple[list[Row], list[str]]:
    """Run the positive controls and all techniques. Return the rows, and the packets that no technique explains."""
    rows = [one for place in found for one in control(place, f"{run}-before")]
    before = outside.here()
    with ThreadPoolExecutor(len(found)) as pool:
        results = list(pool.map(lambda place: outcomes_of(place, level, run, only), found))
    rows += [one for result, _ in results for one in result]
    return rows, outside.since(before).unexplained(token for _, tokens in results for token in tokens.values())


def _unexplained(place: Place, stray: list[str]) -> Row:
    return row(place, "unexplained packets at the canary", len(stray), "packets", "0", not stray, str(stray[:3]))


def _forged(place: Place) -> Row:
    forged = outside.forged()
    return row(place, "forged records after the attacks", len(forged), "forged", "0", not forged, "; ".join(forged))


def _controls_after(found: list[Place], run: str) -> list[Row]:
    return [
        {**one, "name": f"{one['name']}, after the attacks"}
        for place in found
        for one in control(place, f"{run}-after")
    ]


def main() -> int:
    """Run all attacks. Print the results and write them to a file. Return the exit code."""
    parser = argparse.ArgumentParser(prog="make attack", description=__doc__.split("\n")[0])
    parser.add_argument("--level", choices=list(PROXY), default="network")
    parser.add_argument(
        "--json", action="store_true", help="print the results as JSON, in the format of build/attack.json"
    )
    parser.add_argument(
        "--siblings", action="store_true", help="attack from sibling containers of a gateway with the Docker socket"
    )
    arguments = parser.parse_args()
    rows = everything_from_siblings(arguments.level) if arguments.siblings else everything(arguments.level)
    OUTPUT.parent.mkdir(exist_ok=True)
    text = json.dumps({"level": arguments.level, "results": rows}, indent=2)
    OUTPUT.write_text(text + "\n")
    if arguments.json:
        print(text)
    else:
        for one in rows:
            mark = "" if one["met"] else f"  NOT MET (goal: {one['goal']})  {one['detail'][:300]}"
            print(f"{one['name']:<58} {one['value']:>4} {one['unit']}{mark}")
        missed = sum(not one["met"] for one in rows)
        print(f"{len(rows)} results, {missed} do not meet their goal")
    return 0 if all(one["met"] for one in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
