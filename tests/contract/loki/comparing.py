"""Comparison of responses with recorded responses, and the permitted differences, each with its reason."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .asker import SECOND, decode_status

_FILE = json.loads(Path(__file__).with_name("answers.json").read_text(encoding="utf-8"))
ANSWERS: dict[str, Any] = {name: item["answer"] for name, item in _FILE["answers"].items()}
ABOUT: dict[str, str] = {name: item["about"] for name, item in _FILE["answers"].items()}
_RUN: str = _FILE["recorded_run"]
RECORDED_AT_NS: int = _FILE["recorded_at_ns"]
# Permitted difference in seconds between a timestamp and the recorded one, both relative to "now". Here, each case
# takes its own "now". The recorded run took it only once, and some of its cases ran up to 140 s later.
TOLERANCE_S = 150

_CLOCK = f"times depend on the clock: compared by their distance from now, within {TOLERANCE_S} s"
DIFFERENCES: dict[str, str] = {
    "buildinfo": "version and revision depend on the build: only status, content type and keys are compared",
    "names": f"observed_timestamp; {_CLOCK}",
    "batch-two-bad": f"the groups of the summary have a random order (a Go map): compared as a set; {_CLOCK}",
    "t-8d-old": _CLOCK,
    "t-11m-ahead": _CLOCK,
    "behind-61m": _CLOCK,
    "behind-120m": _CLOCK,
    "behind-in-one-batch": _CLOCK,
    "query": f"the length of the refused range, times of lines; {_CLOCK}",
    "labels": "label names belong to the whole instance: it must have those recorded, and may have more",
    "rate": "the token bucket refills during the pushes: it accepts at least the recorded three before it refuses one",
}

_TIMES = re.compile(
    r"(?P<rfc3339>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)"
    r"|(?P<go>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{9} \+0000 UTC)"
    r"|(?P<ns>\b1[6-9]\d{17}\b)"
    r"|(?P<length>\b\d+h\d+m[\d.]+s\b)"
)


def from_recorded(answer: Any) -> Any:
    """Convert a recorded response to the form that `Asker` returns: decode the body of an error to its message."""
    if isinstance(answer, list):
        return [from_recorded(item) for item in answer]
    if not isinstance(answer, dict):
        return answer
    if answer.get("content_type") == "application/octet-stream" and "body" in answer:
        # The recording contains RUN instead of the name of the recorded run. Restore this name first, because the
        # encoded length of the message includes it.
        body = answer["body"].replace("p-RUN-", f"p-{_RUN}-").encode()
        raw = re.sub(rb"\\x([0-9a-f]{2})", lambda m: bytes([int(m[1], 16)]), body)
        message = decode_status(raw).replace(f"p-{_RUN}-", "p-RUN-")
        return {name: item for name, item in answer.items() if name != "body"} | {"message": message}
    return {name: from_recorded(item) for name, item in answer.items()}


def _seconds(match: re.Match[str], now_ns: int) -> float:
    text = match.group()
    if match["ns"]:
        return (int(text) - now_ns) / SECOND
    if match["length"]:
        hours, minutes, seconds = re.split("[hms]", text)[:3]
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    moment = datetime.strptime(text[:19].replace(" ", "T"), "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    return moment.timestamp() - now_ns / SECOND


def _timed(text: str, now_ns: int) -> tuple[str, list[float]]:
    """Replace timestamps and durations in a text with placeholders. Return the new text, and their values.

    All values are in seconds. Timestamps are relative to ``now_ns``.
    """
    times = [_seconds(match, now_ns) for match in _TIMES.finditer(text)]
    return _TIMES.sub(lambda match: f"<{match.lastgroup}>", text), times


def differences(recorded: Any, got: Any, now_ns: int, at: str = "") -> list[str]:
    """Return the differences between `got` and `recorded`. Compare timestamps relative to "now" in each run."""
    here = at or "answer"
    if isinstance(recorded, dict) and isinstance(got, dict):
        lacking = [f"{here}: {side} {key!r}" for side, keys in _keys(recorded, got) for key in sorted(keys)]
        return lacking + [
            line
            for key in recorded
            if key in got
            for line in differences(recorded[key], got[key], now_ns, f"{at}.{key}")
        ]
    if isinstance(recorded, list) and isinstance(got, list) and len(recorded) == len(got):
        return [
            line
            for i, (one, other) in enumerate(zip(recorded, got, strict=True))
            for line in differences(one, other, now_ns, f"{at}[{i}]")
        ]
    if isinstance(recorded, str) and isinstance(got, str):
        (want, wanted), (have, had) = _timed(recorded, RECORDED_AT_NS), _timed(got, now_ns)
        far = [(a, b) for a, b in zip(wanted, had, strict=False) if abs(a - b) > TOLERANCE_S]
        if want == have and len(wanted) == len(had) and not far:
            return []
    elif type(recorded) is type(got) and recorded == got:
        return []
    return [f"{here}: recorded {recorded!r}, got {got!r}"]


def _keys(recorded: dict[str, Any], got: dict[str, Any]) -> list[tuple[str, set[str]]]:
    return [("lacks", recorded.keys() - got.keys()), ("has too", got.keys() - recorded.keys())]


def legitimate(name: str, recorded: Any, got: Any) -> tuple[Any, Any]:
    """Return both responses without the differences that DIFFERENCES permits for this case."""
    if name == "buildinfo":
        recorded, got = ({**one, "body": sorted(json.loads(one["body"]))} for one in (recorded, got))
    elif name == "batch-two-bad":
        for one in (recorded, got):
            one["push"]["message"] = sorted(one["push"].get("message", "").split("; "))
    elif name == "labels":
        got["names"] = [label for label in got["names"] if label in recorded["names"]]
    elif name == "rate":
        taken = got["statuses"][:-1]
        if len(taken) >= 3 and set(taken) == {204}:
            got["statuses"] = [204] * 3 + got["statuses"][-1:]
    return recorded, got
