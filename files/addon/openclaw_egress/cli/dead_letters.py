"""``egress dead-letter`` and ``resend``: lines that the destination refused, and lines that it has lost."""

from __future__ import annotations

import os
import pwd
import re
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, NoReturn

import typer

from openclaw_egress.audit.stores import VICTORIA_LOGS_PATH
from openclaw_egress.cli.formatting import (
    BAD_INPUT,
    NEGATIVE,
    is_narrow,
    print_error,
    print_json,
    print_table,
    quoted,
)
from openclaw_egress.cli.health_check import ask
from openclaw_egress.recording.records import rfc3339
from openclaw_egress.reports.text import escape, local_time, size
from openclaw_egress.settings import Settings
from openclaw_egress.spool.commands import Action, Command, submit
from openclaw_egress.spool.progress import Progress
from openclaw_egress.spool.reader import DeadLetter, SpoolReader
from openclaw_egress.spool.rows import ACKNOWLEDGED, DEAD, LOCAL, PENDING, compact, ranges

app = typer.Typer(no_args_is_help=True, help="List, retry or drop lines that the destination refuses for good.")

COLUMNS = [
    ("seq", "right"),
    ("time", "left"),
    ("class", "left"),
    ("host", "left"),
    ("size", "right"),
    ("reason", "left"),
]
NARROW = ("seq", "host", "reason")
WAIT_SECONDS, WAIT_SECONDS_STOPPED = 10.0, 1.5
"""Seconds that a command waits for progress: while the proxy runs, and while its health endpoint does not respond."""
OLD_NS = 7 * 24 * 3600 * 10**9
"""Maximum age of a line, in nanoseconds, that Loki accepts by default (``reject_old_samples_max_age``)."""
_LINES = re.compile(r"([0-9]+)(?:-([0-9]+))?")
_MAX_SEQ = 2**63 - 1

Numbers = Annotated[
    list[str] | None, typer.Argument(metavar="[SEQ]...", help="Numbers of lines: 12, 12-40 or 12,14-16.")
]
All = Annotated[bool, typer.Option("--all", help="Select all dead letters.")]
Reason = Annotated[
    str | None, typer.Option(help="Select dead letters whose reason has this code: too_old, line_too_long, …")
]
Why = Annotated[str | None, typer.Option(metavar="TEXT", help="Record this as the reason for the command.")]
By = Annotated[
    str | None, typer.Option(metavar="NAME", help="Record this name. Default: the user who runs the command.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def register(root: typer.Typer) -> None:
    """Register the commands `dead-letter` and `resend`."""
    root.add_typer(app, name="dead-letter")
    root.command()(resend)


@app.command("list")
def list_(
    reason: Reason = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Show at most the N newest dead letters.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line, without a limit.")] = False,
) -> None:
    """List the dead letters, the newest last, with the destination's reason for each.

    Exit code 0, even without dead letters.
    """
    with SpoolReader(Settings.load().spool_path) as reader:
        every = reader.dead_letters()
    found = [letter for letter in every if reason is None or letter.code == reason]
    if as_json:
        for letter in found:
            print_json(_as_json(letter))
    elif found:
        _print_list(found, limit)
    else:
        print_error(_none_has(reason, every) if reason is not None and every else "no dead letters")


@app.command()
def show(
    seq: Annotated[int, typer.Argument(metavar="SEQ", min=1, help="Number of the line.")], as_json: AsJson = False
) -> None:
    """Show one dead letter: the destination's reason, and the line.

    The line starts with `│ ` and control characters are escaped; `--json` prints it unmodified.
    """
    with SpoolReader(Settings.load().spool_path) as reader:
        letter = next((found for found in reader.dead_letters() if found.seq == seq), None)
        line = reader.line(seq)
    if letter is None or line is None:
        print_error(f"line {seq} is not a dead letter; `egress dead-letter list` lists them")
        raise typer.Exit(NEGATIVE)
    if as_json:
        print_json(_as_json(letter) | {"line": line})
        return
    for name, value in _as_json(letter).items():
        text = local_time(letter.time_ns) if name == "time" else size(letter.size) if name == "size" else value
        typer.echo(f"{name:<12} {escape(text)}")
    typer.echo(quoted(line))


@app.command()
def retry(
    numbers: Numbers = None,
    every: All = False,
    reason: Reason = None,
    why: Why = None,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Send dead letters again, for example after a limit of the destination was raised.

    A line that the destination refuses again becomes a dead letter again. A range selects only the dead letters in it.
    A record contains the user and the reason. Exit codes: 0 the lines wait for the exporter, or the command is saved
    until the proxy starts; 1 no dead letter has the reason; 2 invalid input, nothing changed.
    """
    settings = Settings.load()
    with SpoolReader(settings.spool_path) as reader:
        chosen = _chosen(reader, numbers, every=every, reason=reason)
        times = [(letter.seq, letter.time_ns) for letter in chosen]
        if old := _too_old(settings, times):
            print_error(f"warning: {_old_lines(old, len(times))}; they then become dead letters again")
        _give(reader, Action.RETRY, [letter.seq for letter in chosen], signed_reason(why, by), as_json=as_json)


@app.command()
def drop(
    numbers: Numbers = None,
    every: All = False,
    reason: Reason = None,
    yes: Annotated[bool, typer.Option("--yes", help="Confirm that the lines are deleted for good.")] = False,
    why: Why = None,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Delete dead letters for good, and free their space.

    A record names the lines, the user and the reason, so that `egress audit` can explain the gap. A range
    selects only the dead letters in it. Exit codes: 0 the lines are deleted, or the command is saved until the proxy
    starts; 1 no dead letter has the reason; 2 invalid input, nothing changed.
    """
    with SpoolReader(Settings.load().spool_path) as reader:
        chosen = _chosen(reader, numbers, every=every, reason=reason)
        if not yes:
            freed = size(sum(letter.size for letter in chosen))
            _bad(f"this deletes {len(chosen)} dead letters ({freed}) for good; add --yes to confirm")
        text = why or f"the destination refused them ({_counts(chosen)})"
        _give(reader, Action.DROP, [letter.seq for letter in chosen], signed_reason(text, by), as_json=as_json)


def resend(
    numbers: Annotated[list[str], typer.Argument(metavar="SEQ...", help="Numbers of lines: 12, 12-40 or 12,14-16.")],
    old: Annotated[
        bool, typer.Option("--old", help="Also send lines older than 7 days, which Loki refuses by default.")
    ] = False,
    why: Why = None,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Send acknowledged lines again if the destination lacks them; `egress audit` lists such lines.

    Loki stores a line only once in a stream. It refuses lines far behind the newest line of their stream, so lines more
    than 30 minutes behind get a stream of their own (label `service_namespace`). If Loki already has such a line, it
    then stores the line twice. A record contains the user and the reason. Exit codes: 0 the lines wait for the
    exporter, or the command is saved until the proxy starts; 2 invalid input, nothing changed.
    """
    settings = Settings.load()
    with SpoolReader(settings.spool_path) as reader:
        times = _acknowledged(reader, _merged(_parsed(numbers)))
        if not old and (refused := _too_old(settings, times)):
            _bad(
                f"{_old_lines(refused, len(times))}, so they would become dead letters. Name only the others, or add "
                "--old if the limits of the destination permit them"
            )
        _give(reader, Action.RESEND, [seq for seq, _ in times], signed_reason(why, by), as_json=as_json)


# ── selection of lines ───────────────────────────────────────────────────────────────────────────────────────────


def _parsed(words: Iterable[str]) -> list[tuple[int, int]]:
    """Parse line numbers and ranges, such as ``12,14-16``. Exit with a message if one is invalid."""
    runs: list[tuple[int, int]] = []
    for word in (part.strip() for words_ in words for part in words_.split(",")):
        found = _LINES.fullmatch(word)
        first = int(found[1]) if found else 0
        last = int(found[2]) if found and found[2] else first
        if not 1 <= first <= last <= _MAX_SEQ:
            _bad(f"'{escape(word)}' is not a number of lines; write 12, 12-40 or 12,14-16")
        runs.append((first, last))
    return runs


def _merged(runs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sort ranges, and merge those that overlap or are adjacent."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(runs):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def _chosen(reader: SpoolReader, numbers: list[str] | None, *, every: bool, reason: str | None) -> list[DeadLetter]:
    """Return the dead letters that the arguments select. Exit if there are none."""
    if bool(numbers) == every:
        _bad("select dead letters by number (`egress dead-letter list` lists them), or add --all, not both")
    found = letters = reader.dead_letters()
    if numbers:
        runs = _parsed(numbers)
        found = [letter for letter in letters if any(first <= letter.seq <= last for first, last in runs)]
        seqs = {letter.seq for letter in found}
        if others := [(a, b) for a, b in runs if not any(a <= seq <= b for seq in seqs)]:
            _bad(f"no dead letter has the number {compact(_merged(others))}; `egress dead-letter list` lists them")
    if reason is not None:
        found = [letter for letter in found if letter.code == reason]
    if not found:
        print_error(_none_has(reason, letters) if reason is not None and letters else "no dead letters")
        raise typer.Exit(NEGATIVE)
    return found


def _none_has(reason: str | None, letters: Sequence[DeadLetter]) -> str:
    return f"no dead letter has the reason {escape(reason)}; the reasons are: {_counts(letters)}"


def _counts(letters: Iterable[DeadLetter]) -> str:
    return ", ".join(f"{count} {code}" for code, count in Counter(letter.code for letter in letters).most_common())


_UNSENDABLE = {
    PENDING: "{}: already waiting for the exporter",
    DEAD: "{}: dead letters (`egress dead-letter retry` sends them)",
    LOCAL: "{}: recorded without a destination",
    None: "{}: no longer in the spool, so no copy is left to send",
}


def _acknowledged(reader: SpoolReader, runs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the number and timestamp of each line in the ranges. Exit with a message unless all are acknowledged."""
    newest = reader.head()[0]
    times: list[tuple[int, int]] = []
    others: dict[int | None, list[int]] = {}
    unknown: list[tuple[int, int]] = []
    for first, last in runs:
        for seq, time_ns, _, state in reader.ledger(first, last):
            if state == ACKNOWLEDGED:
                times.append((seq, time_ns))
            else:
                others.setdefault(state, []).append(seq)
        if last > newest:
            unknown.append((max(first, newest + 1), last))
    problems = [_UNSENDABLE[state].format(_named(ranges(seqs))) for state, seqs in others.items()]
    if unknown:
        problems.append(f"{_named(unknown)}: not recorded yet (the newest line is {newest})")
    if problems:
        _bad(f"{'; '.join(problems)}; list only acknowledged lines")
    return times


def _named(runs: Iterable[tuple[int, int]]) -> str:
    """Format line numbers for a message: ``line 12`` or ``lines 12-14``."""
    text = compact(runs)
    return f"line {text}" if text.isdigit() else f"lines {text}"


def _too_old(settings: Settings, times: Iterable[tuple[int, int]]) -> list[int]:
    """Return the numbers of the lines that Loki's default limits refuse as too old; none for VictoriaLogs."""
    if settings.logs_endpoint.rstrip("/").endswith(VICTORIA_LOGS_PATH):
        return []
    oldest = time.time_ns() - OLD_NS
    return [seq for seq, time_ns in times if time_ns < oldest]


def _old_lines(old: Sequence[int], count: int) -> str:
    return (
        f"Loki with default limits refuses {len(old)} of {count} lines ({compact(ranges(old))}) for ever: they are "
        "older than 7 days (reject_old_samples_max_age)"
    )


def _bad(problem: str) -> NoReturn:
    print_error(f"nothing was changed: {problem}")
    raise typer.Exit(BAD_INPUT)


# ── the command file ─────────────────────────────────────────────────────────────────────────────────────────────


def signed_reason(why: str | None, by: str | None) -> str:
    """Return the text that a command's record contains: the user, the user ID and the reason."""
    uid = os.getuid()
    if by is None:
        try:
            by = os.environ.get("SUDO_USER") or pwd.getpwuid(uid).pw_name
        except KeyError:  # /etc/passwd has no entry for this ID, as in the proxy's container.
            by = "an operator"
    return f"{by} (uid {uid})" + (f": {why}" if why else "")


class Outcome(NamedTuple):
    """The outcome of a command: its progress, whether a running proxy uses the spool, and the file with the command."""

    progress: Progress
    running: bool
    file: Path

    def unfinished(self) -> str:
        """Return a message for the operator about an unfinished command."""
        if self.running:
            return "the proxy has not finished the command yet and continues with it; `egress status` shows problems"
        return (
            f"no proxy is running on this spool: the command is saved in {escape(self.file)} and runs when the proxy "
            "starts; delete that file to cancel it"
        )


def give(reader: SpoolReader, command: Command) -> Outcome:
    """Submit a command to the process that writes the spool. Wait until it is done or makes no progress."""
    file = submit(reader.path, command)
    health = ask("/healthz")
    running = health is not None and health.get("instance") == reader.instance_id
    return Outcome(_wait(reader, command, WAIT_SECONDS if running else WAIT_SECONDS_STOPPED), running, file)


def _give(reader: SpoolReader, action: Action, seqs: Sequence[int], why: str, *, as_json: bool) -> None:
    """Submit a command to the process that writes the spool, wait as in `give`, and print the outcome."""
    outcome = give(reader, Command(action, tuple(ranges(seqs)), why))
    if as_json:
        state = "done" if outcome.progress.done else "kept"
        print_json({"action": action, "lines": len(seqs), "state": state, "changed": outcome.progress.changed})
    elif outcome.progress.done:
        typer.echo(_result(action, len(seqs), outcome.progress.changed))
    else:
        typer.echo(outcome.unfinished())


def _wait(reader: SpoolReader, command: Command, patience: float) -> Progress:
    """Wait until a command is done or has made no progress for ``patience`` seconds. Return its progress."""
    progress = Progress()
    deadline = time.monotonic() + patience
    while not progress.done and time.monotonic() < deadline:
        time.sleep(0.05)
        if (now := reader.command_progress(command.id)) != progress:
            progress, deadline = now, time.monotonic() + patience
    return progress


def _result(action: Action, count: int, changed: int) -> str:
    what, hint = (
        ("dropped lines", "a record contains the user and the reason (`egress records --event spool`)")
        if action is Action.DROP
        else ("lines to be sent again", "`egress status` shows how many wait")
    )
    others = "" if changed == count else f" (changed by other commands meanwhile: {count - changed})"
    return f"{what}: {changed}{others}; {hint}"


# ── output ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _print_list(found: Sequence[DeadLetter], limit: int) -> None:
    shown = found[-limit:]
    taken = [at for at, (name, _) in enumerate(COLUMNS) if not is_narrow() or name in NARROW]
    print_table(
        [COLUMNS[at] for at in taken],
        [[_cells(letter)[at] for at in taken] for letter in shown],
        [""] * len(shown),
    )
    more = "" if len(shown) == len(found) else f", of which {len(shown)} are shown (--limit N shows more)"
    typer.echo(f"{len(found)} dead letters: {_counts(found)}{more}")


def _cells(letter: DeadLetter) -> list[object]:
    host = letter.host or letter.event_name.rpartition(".")[2]
    return [letter.seq, local_time(letter.time_ns), letter.class_name, host, size(letter.size), letter.why]


def _as_json(letter: DeadLetter) -> dict[str, Any]:
    fields = {
        "seq": letter.seq,
        "time": rfc3339(letter.time_ns),
        "class": letter.class_name,
        "event_name": letter.event_name,
        "id": letter.id,
        "part": letter.part or None,
        "parts": letter.parts or None,
        "host": letter.host,
        "size": letter.size,
        "code": letter.code,
        "reason": letter.why,
    }
    return {name: value for name, value in fields.items() if value not in (None, "")}
