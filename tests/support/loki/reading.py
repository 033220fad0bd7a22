"""Loki's read API: query_range, query, labels, label values, series.

Each function takes the parameters of a request and returns the response as JSON values. The formats in the recorded
cases `query`, `labels` and `series` come from a real Loki. All other formats follow the documentation of its HTTP API.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from .entries import shown, stream_name
from .limits import HOUR, SECOND, go_duration, result_too_large
from .logql import Labels, LogQuery, MetricQuery, parse
from .store import Store, as_labels
from .tokens import LogQLError, duration_ns

type Parameters = Mapping[str, list[str]]


class BadQuery(ValueError):
    """Error that causes a response with status 400. Its text is the response body."""


class TooLarge(Exception):
    """Error that causes a response with status 500. Its text is the response body."""


def _time(parameters: Parameters, name: str, default: int) -> int:
    text = parameters.get(name, [""])[0]
    if not text:
        return default
    if re.fullmatch(r"\d+", text):
        # As in Loki, a time of up to ten digits is in seconds, and a longer one in nanoseconds.
        return int(text) * SECOND if len(text) <= 10 else int(text)
    if re.fullmatch(r"\d+\.\d+", text):
        seconds, fraction = text.split(".")
        return int(seconds) * SECOND + int(fraction[:9].ljust(9, "0"))
    try:
        return int(datetime.fromisoformat(text).timestamp() * 10**6) * 1000
    except ValueError:
        raise BadQuery(f'could not parse "{name}" parameter: cannot parse {text!r} to a valid timestamp') from None


def _window(store: Store, parameters: Parameters, default_ns: int) -> tuple[int, int]:
    end = _time(parameters, "end", store.now_ns())
    start = _time(parameters, "start", end - default_ns)
    if end <= start:
        raise BadQuery("end timestamp must not be before or equal to start time")
    if end - start > store.limits.query_ns:
        raise BadQuery(
            f"the query time range exceeds the limit (query length: {go_duration(end - start)}, limit: 30d1h)"
        )
    return start, end


def _limit(store: Store, parameters: Parameters) -> int:
    text = parameters.get("limit", ["100"])[0]
    if not text.isdigit() or int(text) == 0:
        raise BadQuery("limit must be a positive value")
    if int(text) > store.limits.query_entries:
        raise BadQuery(
            "max entries limit per query exceeded, limit > max_entries_limit_per_query "
            f"({text} > {store.limits.query_entries})"
        )
    return int(text)


def _parse(parameters: Parameters) -> LogQuery | MetricQuery:
    try:
        return parse(parameters.get("query", [""])[0])
    except LogQLError as error:
        raise BadQuery(str(error)) from None


def _data(kind: str, result: list[Any]) -> dict[str, Any]:
    return {"status": "success", "data": {"resultType": kind, "result": result, "stats": {}}}


def _lines(store: Store, query: LogQuery, start: int, end: int) -> list[tuple[int, Labels, str]]:
    found = []
    for labels, entries in store.select(query.selects, start, end):
        for entry in entries:
            line = shown(entry.line)
            kept = query.run(as_labels(labels, entry), line)
            if kept is not None:
                found.append((entry.time_ns, kept, query.shown(kept, line)))
    return found


def query_range(store: Store, parameters: Parameters) -> dict[str, Any]:
    """Return the streams of a log query, or the matrix of a metric query."""
    limit = _limit(store, parameters)
    query = _parse(parameters)
    start, end = _window(store, parameters, HOUR)
    if isinstance(query, MetricQuery):
        return _matrix(store, query, parameters, start, end)
    backward = parameters.get("direction", ["backward"])[0].lower() != "forward"
    lines = sorted(_lines(store, query, start, end), key=lambda line: line[0], reverse=backward)[:limit]
    size = sum(len(line.encode()) + sum(len(n) + len(v) for n, v in kept.items()) for _, kept, line in lines)
    if size > store.limits.send_bytes:
        raise TooLarge(result_too_large(size, store.limits.send_bytes))
    streams: dict[str, dict[str, Any]] = {}
    for time_ns, labels, line in lines:
        stream = streams.setdefault(stream_name(labels), {"stream": labels, "values": []})
        stream["values"].append([str(time_ns), line])
    return _data("streams", [stream for _, stream in sorted(streams.items())])


def _sums(store: Store, query: MetricQuery, at_ns: int) -> dict[str, tuple[Labels, float]]:
    sums: dict[str, tuple[Labels, float]] = {}
    # Add 1 ns to both limits: Loki excludes the start of a range and includes its end, and select() does the reverse.
    for _, labels, _line in _lines(store, query.log, at_ns - query.range_ns + 1, at_ns + 1):
        try:
            value = query.value(labels)
        except LogQLError as error:
            raise BadQuery(str(error)) from None
        if value is not None:
            series = query.series(labels)
            name = stream_name(series)
            sums[name] = (series, sums.get(name, (series, 0))[1] + value)
    return dict(sorted(sums.items(), key=lambda item: -item[1][1])[: query.top])


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def _matrix(store: Store, query: MetricQuery, parameters: Parameters, start: int, end: int) -> dict[str, Any]:
    text = parameters.get("step", [""])[0]
    if not text:
        step = max((end - start) // 250 // SECOND, 1) * SECOND
    else:
        step = duration_ns(text) or int(float(text) * SECOND)
    if step <= 0 or (end - start) // step > 11_000:
        raise BadQuery("exceeded maximum resolution of 11,000 points per time series. Try increasing the step")
    series: dict[str, dict[str, Any]] = {}
    for at in range(start, end + 1, step):
        for name, (labels, value) in _sums(store, query, at).items():
            one = series.setdefault(name, {"metric": labels, "values": []})
            one["values"].append([at / SECOND, _number(value)])
    return _data("matrix", [one for _, one in sorted(series.items())])


def query(store: Store, parameters: Parameters) -> dict[str, Any]:
    """Return the vector of a metric query at one point in time."""
    _limit(store, parameters)
    parsed = _parse(parameters)
    at = _time(parameters, "time", store.now_ns())
    if isinstance(parsed, LogQuery):
        raise BadQuery(
            "log queries are not supported as an instant query type, please change your query to a range query type"
        )
    sums = sorted(_sums(store, parsed, at).items())
    return _data("vector", [{"metric": labels, "value": [at / SECOND, _number(n)]} for _, (labels, n) in sums])


def _found(store: Store, parameters: Parameters, texts: list[str]) -> list[Labels]:
    start, end = _window(store, parameters, 6 * HOUR)
    selectors = [_parse({"query": [text]}) for text in texts if text]
    if any(not isinstance(s, LogQuery) or s.stages for s in selectors):
        raise BadQuery("parse error : Loki fake: only selectors are supported here")

    def wanted(labels: Labels) -> bool:
        return not selectors or any(isinstance(s, LogQuery) and s.selects(labels) for s in selectors)

    return [labels for labels, _ in store.select(wanted, start, end)]


def _list(values: set[str]) -> dict[str, Any]:
    # Like Loki, omit "data" for an empty result.
    return {"status": "success", **({"data": sorted(values)} if values else {})}


def labels(store: Store, parameters: Parameters) -> dict[str, Any]:
    """Return the names of all stream labels. Names of structured metadata are not labels."""
    return _list({name for found in _found(store, parameters, parameters.get("query", [])) for name in found})


def label_values(store: Store, parameters: Parameters, name: str) -> dict[str, Any]:
    """Return all values of one label."""
    found = _found(store, parameters, parameters.get("query", []))
    return _list({one[name] for one in found if name in one})


def series(store: Store, parameters: Parameters) -> dict[str, Any]:
    """Return the labels of each matching stream."""
    texts = parameters.get("match[]", parameters.get("match", []))
    return {"status": "success", "data": _found(store, parameters, texts)}
