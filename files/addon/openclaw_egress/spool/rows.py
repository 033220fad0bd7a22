"""The fields and states of a stored line. The table ``records``, queries and JSON output are derived from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, NamedTuple, get_type_hints

from openclaw_egress.recording import semconv

PENDING, ACKNOWLEDGED, DEAD, LOCAL = 0, 1, 2, 3
STATES = ("pending", "acknowledged", "dead_letter", "local")


class Column(NamedTuple):
    """The column of the table ``records`` that stores a field of `Row`."""

    sql: str
    attribute: str = ""
    """The log line attribute that the column stores; empty if the spool computes the value."""
    name: str = ""
    """Name of the column, if it differs from the field's name."""
    last_absent: int = -1
    """Highest schema version (``user_version``) whose files may lack the column; -1 if every file has it."""


_TEXT, _INTEGER, _REAL = "TEXT", "INTEGER", "REAL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A record, as the CLI shows it. Times are in Unix nanoseconds, durations in seconds. ``None`` means unknown."""

    seq: Annotated[int, Column("INTEGER PRIMARY KEY")]
    time_ns: Annotated[int, Column("INTEGER NOT NULL")]
    state: Annotated[str, Column("INTEGER NOT NULL")]
    class_name: Annotated[str, Column("TEXT NOT NULL", name="class")]
    event_name: Annotated[str, Column("TEXT NOT NULL")]
    id: Annotated[str, Column("TEXT NOT NULL", semconv.EXCHANGE_ID, "exchange_id")]
    part: Annotated[int, Column("INTEGER NOT NULL", semconv.PART_INDEX)]
    """Position of the part in a split record, from 1. The first line of a record has 0."""
    parts: Annotated[int, Column("INTEGER NOT NULL", semconv.PART_COUNT)]
    begin: Annotated[str | None, Column(_TEXT, semconv.BEGIN)]
    method: Annotated[str | None, Column(_TEXT, semconv.HTTP_REQUEST_METHOD)]
    url: Annotated[str | None, Column(_TEXT, semconv.URL_FULL)]
    host: Annotated[str | None, Column(_TEXT, semconv.SERVER_ADDRESS)]
    port: Annotated[int | None, Column(_INTEGER, semconv.SERVER_PORT)]
    status: Annotated[int | None, Column(_INTEGER, semconv.HTTP_RESPONSE_STATUS_CODE)]
    outcome: Annotated[str | None, Column(_TEXT, semconv.OUTCOME)]
    rule: Annotated[str | None, Column(_TEXT, semconv.RULE)]
    reason: Annotated[str | None, Column(_TEXT, semconv.REASON)]
    provider: Annotated[str | None, Column(_TEXT, semconv.GEN_AI_PROVIDER_NAME)]
    model: Annotated[str | None, Column(_TEXT)]
    stream: Annotated[bool | None, Column(_INTEGER, semconv.GEN_AI_REQUEST_STREAM)]
    input_tokens: Annotated[int | None, Column(_INTEGER, semconv.GEN_AI_USAGE_INPUT_TOKENS)]
    output_tokens: Annotated[int | None, Column(_INTEGER, semconv.GEN_AI_USAGE_OUTPUT_TOKENS)]
    cache_read_tokens: Annotated[int | None, Column(_INTEGER, semconv.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS)]
    cache_write_tokens: Annotated[int | None, Column(_INTEGER, semconv.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS)]
    reasoning_tokens: Annotated[int | None, Column(_INTEGER, semconv.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS)]
    duration: Annotated[float | None, Column(_REAL, semconv.DURATION)]
    first_chunk: Annotated[float | None, Column(_REAL, semconv.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK)]
    error_type: Annotated[str | None, Column(_TEXT, semconv.ERROR_TYPE)]
    count: Annotated[int | None, Column(_INTEGER, semconv.COUNT)]
    why: Annotated[str | None, Column(_TEXT)]
    client: Annotated[str | None, Column(_TEXT, semconv.CLIENT_ADDRESS, last_absent=0)]
    code: Annotated[str | None, Column(_TEXT, semconv.CODE, last_absent=0)]
    address: Annotated[str | None, Column(_TEXT, semconv.ADDRESS, last_absent=0)]
    enforced: Annotated[bool | None, Column(_INTEGER, semconv.ENFORCED, last_absent=0)]
    summary: Annotated[bool | None, Column(_INTEGER, semconv.SUMMARY, last_absent=0)]
    """Whether the record is a summary of `count` denials."""
    key: Annotated[str | None, Column(_TEXT, semconv.KEY, last_absent=1)]
    """Fingerprint of the API key."""
    cost_usd: Annotated[float | None, Column(_REAL, semconv.COST, last_absent=1)]
    instance: Annotated[str | None, Column(_TEXT, semconv.INSTANCE, last_absent=2)]
    """Gateway instance whose listener accepted the client."""


def _columns() -> dict[str, Column]:
    hints = get_type_hints(Row, include_extras=True)
    found = {name: hint.__metadata__[0] for name, hint in hints.items()}
    return {name: column._replace(name=column.name or name) for name, column in found.items()}


COLUMNS = _columns()
"""The columns, by field name."""
FLAGS = tuple(name for name, hint in get_type_hints(Row).items() if hint == bool | None)
ATTRIBUTES = {column.name: column.attribute for column in COLUMNS.values() if column.attribute}
"""Maps each column that stores an attribute of a log line to that attribute."""


def absent_until(version: int) -> dict[str, str]:
    """Return the columns, with their SQL types, that files of this schema version may lack."""
    return {column.name: column.sql for column in COLUMNS.values() if column.last_absent >= version}


def reason_code(why: str | None) -> str:
    """Return the code of a dead letter's reason: the text before the first colon, or ``refused`` without one."""
    code = (why or "").partition(":")[0]
    return code if code and code.replace("_", "").isalnum() and code.islower() else "refused"


def ranges(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield ``(first, last)`` for each run of consecutive numbers. ``numbers`` must increase."""
    first = last = None
    for number in numbers:
        if first is None or last is None or number != last + 1:
            if first is not None and last is not None:
                yield first, last
            first = number
        last = number
    if first is not None and last is not None:
        yield first, last


def compact(runs: Iterable[tuple[int, int]]) -> str:
    """Return ranges of numbers as text that `egress resend` accepts, such as ``12-40,50``."""
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
