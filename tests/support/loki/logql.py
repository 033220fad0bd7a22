"""Parser for the part of LogQL that this project uses. The error for an unsupported construct contains the construct.

    {label="v", other=~"re"} |= "text" != "text" |~ "re" !~ "re" | json | name="v" | number >= 200 and other != "x"
    <the above> | line_format "{{.name}} and text"
    count_over_time(<the first> [1h])      sum_over_time(<the first> | unwrap name [1h])
    sum(…)      sum by (a, b) (…)      topk(3, …)

The error messages come from the recorded case `query`. `line_format`, `unwrap`, `sum_over_time` and `topk` follow
Loki's documentation. If Loki supports a construct and the fake does not, the error says so. Regular expressions are
Python's, not RE2: use only syntax that both interpret in the same way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from .tokens import TOKEN_NAMES, LogQLError, Token, duration_ns, tokens, unquote

type Labels = dict[str, str]
# A pipeline stage. It takes the labels and the line, and returns the new labels, or None if it filters out the line.
type Stage = Callable[[Labels, str], Labels | None]

_FIELD = re.compile(r"\{\{ *\.([A-Za-z_][A-Za-z0-9_]*) *\}\}")
_NO_MATCHER = (
    "parse error : queries require at least one regexp or equality matcher that does not have an empty-compatible "
    'value. For instance, app=~".*" does not meet this requirement, but app=~".+" will'
)


@dataclass
class LogQuery:
    """A log query: stream selector and pipeline."""

    matchers: list[Callable[[Labels], bool]] = field(default_factory=list)
    stages: list[Stage] = field(default_factory=list)
    template: str | None = None
    """Template of `line_format`."""
    unwrap: str | None = None
    """Label whose values `sum_over_time` adds up."""

    def selects(self, labels: Labels) -> bool:
        """Return whether the selector matches a stream with these labels."""
        return all(matcher(labels) for matcher in self.matchers)

    def shown(self, labels: Labels, line: str) -> str:
        """Return the line as `line_format` formats it. An absent label becomes an empty string."""
        if self.template is None:
            return line
        return _FIELD.sub(lambda found: labels.get(found[1], ""), self.template)

    def run(self, labels: Labels, line: str) -> Labels | None:
        """Apply the pipeline to a line. Return its labels, or None if the line is filtered out."""
        for stage in self.stages:
            kept = stage(labels, line)
            if kept is None:
                return None
            labels = kept
        return labels


@dataclass
class MetricQuery:
    """Metric query over a time range. If `by` is None, each set of labels is one series."""

    log: LogQuery
    range_ns: int
    by: tuple[str, ...] | None = None
    top: int | None = None
    """Maximum number of series that `topk` returns."""

    def series(self, labels: Labels) -> Labels:
        """Return the labels of the series to which a line belongs."""
        if self.by is None:
            return {name: value for name, value in labels.items() if name != self.log.unwrap}
        return {name: labels[name] for name in self.by if name in labels}

    def value(self, labels: Labels) -> float | None:
        """Return the number that a line adds to its series, or None if the line lacks the label that `unwrap` names."""
        if self.log.unwrap is None:
            return 1
        text = labels.get(self.log.unwrap, "")
        if not text:
            return None
        try:
            return float(text)
        except ValueError:
            raise LogQLError("pipeline error: 'SampleExtractionErr': the Loki fake unwraps numbers only") from None


def _flatten(prefix: str, value: object, out: Labels) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            name = re.sub(r"[^A-Za-z0-9_]", "_", f"{prefix}_{key}" if prefix else str(key))
            _flatten(name, inner, out)
    elif isinstance(value, bool):
        out[prefix] = "true" if value else "false"
    elif isinstance(value, str):
        out[prefix] = value
    elif isinstance(value, _Raw):
        out[prefix] = value.text


@dataclass(frozen=True)
class _Raw:
    """A JSON number as written in the log line."""

    text: str


def _json_stage(labels: Labels, line: str) -> Labels:
    out: Labels = {}
    try:
        document = json.loads(line, parse_int=_Raw, parse_float=_Raw)
        if not isinstance(document, dict):
            raise TypeError("no object")
    except (ValueError, TypeError, RecursionError) as error:
        return {**labels, "__error__": "JSONParserErr", "__error_details__": str(error)}
    _flatten("", document, out)
    return {**labels, **{(f"{name}_extracted" if name in labels else name): value for name, value in out.items()}}


def _regex(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text, re.DOTALL)
    except re.error as error:
        raise LogQLError(f"parse error : error parsing regexp: {error}") from None


def _compare(op: str, left: float, right: float) -> bool:
    return {
        "=": left == right,
        "==": left == right,
        "!=": left != right,
        ">": left > right,
        ">=": left >= right,
        "<": left < right,
        "<=": left <= right,
    }[op]


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = tokens(text)
        self._at = 0

    @property
    def _next(self) -> Token:
        return self._tokens[self._at]

    def _take(self) -> Token:
        token = self._next
        self._at += token.kind != "end"
        return token

    def _unexpected(self, token: Token, expecting: str = "") -> LogQLError:
        said = f"syntax error: unexpected {TOKEN_NAMES.get(token.kind, token.text)}"
        return LogQLError(
            f"parse error at line 1, col {token.column}: {said}" + (f", expecting {expecting}" if expecting else "")
        )

    def _unknown(self, token: Token) -> LogQLError:
        return LogQLError(
            f"parse error at line 1, col {token.column}: the Loki fake does not support {token.text!r} here"
        )

    def _expect(self, text: str) -> None:
        if self._next.text != text:
            raise self._unexpected(self._next)
        self._take()

    def _string(self) -> str:
        if self._next.kind != "string":
            raise self._unexpected(self._next, "STRING")
        return unquote(self._take().text)

    def query(self) -> LogQuery | MetricQuery:
        token = self._next
        parsed: LogQuery | MetricQuery
        if token.text == "{":
            parsed = self._log()
            if parsed.unwrap is not None:
                raise self._unknown(self._next)
        elif token.kind == "name":
            parsed = self._metric()
        else:
            raise self._unexpected(token)
        if self._next.kind != "end":
            raise self._unexpected(self._next)
        return parsed

    def _metric(self) -> MetricQuery:
        function = self._take()
        if function.text in ("count_over_time", "sum_over_time"):
            self._expect("(")
            log = self._log()
            if (log.unwrap is None) is (function.text == "sum_over_time"):
                raise self._unknown(function)
            self._expect("[")
            if self._next.kind != "duration":
                raise self._unexpected(self._next)
            query = MetricQuery(log, duration_ns(self._take().text))
            self._expect("]")
        elif function.text == "sum":
            by = self._by()
            self._expect("(")
            query = self._metric()
            query.by = by
        elif function.text == "topk":
            self._expect("(")
            number = self._take()
            if not number.text.isdigit():
                raise self._unexpected(number, "NUMBER")
            self._expect(",")
            query = self._metric()
            query.top = int(number.text)
        else:
            raise self._unknown(function)
        self._expect(")")
        if function.text == "sum" and self._next.text == "by":
            query.by = self._by()
        return query

    def _by(self) -> tuple[str, ...]:
        if self._next.text != "by":
            return ()
        self._take()
        self._expect("(")
        names = []
        while self._next.kind == "name":
            names.append(self._take().text)
            if self._next.text == ",":
                self._take()
        self._expect(")")
        return tuple(names)

    def _log(self) -> LogQuery:
        query = LogQuery()
        self._expect("{")
        selective = False
        while self._next.text != "}":
            if self._next.kind != "name":
                raise self._unexpected(self._next)
            name = self._take().text
            op = self._take()
            if op.text not in ("=", "!=", "=~", "!~"):
                raise self._unexpected(op)
            test = _text_test(op.text, self._string())
            selective |= op.text in ("=", "=~") and not test("")
            query.matchers.append(_matcher(name, test))
            if self._next.text == ",":
                self._take()
            elif self._next.text != "}":
                raise self._unexpected(self._next)
        self._take()
        if not selective:
            raise LogQLError(_NO_MATCHER)
        while self._next.text in ("|=", "!=", "|~", "!~", "|"):
            following = self._tokens[self._at + 1].text
            if self._next.text == "|" and following in ("line_format", "unwrap"):
                self._last_stage(query, following)
                break
            query.stages.append(self._stage())
        return query

    def _last_stage(self, query: LogQuery, name: str) -> None:
        """Parse `line_format` or `unwrap`. The fake supports no other stage after them."""
        self._take()
        word = self._take()
        if name == "unwrap":
            if self._next.kind != "name":
                raise self._unexpected(self._next, "IDENTIFIER")
            query.unwrap = self._take().text
            return
        query.template = self._string()
        if "{{" in _FIELD.sub("", query.template):
            raise self._unknown(word)

    def _stage(self) -> Stage:
        op = self._take().text
        if op != "|":
            text = self._string()
            found = (lambda line: text in line) if op in ("|=", "!=") else _regex(text).search
            wanted = op[0] == "|"
            return lambda labels, line: labels if bool(found(line)) is wanted else None
        token = self._next
        if token.kind != "name":
            raise self._unexpected(token)
        if token.text == "json" and self._tokens[self._at + 1].text in ("|", "|=", "!=", "|~", "!~", "$end", "[", ")"):
            self._take()
            return _json_stage
        return self._any_of()

    def _any_of(self) -> Stage:
        parts = [self._all_of()]
        while self._next.text == "or":
            self._take()
            parts.append(self._all_of())
        if len(parts) == 1:
            return parts[0]
        return lambda labels, line: next((kept for p in parts if (kept := p(labels, line)) is not None), None)

    def _all_of(self) -> Stage:
        parts = [self._filter()]
        while self._next.text in ("and", ","):
            self._take()
            parts.append(self._filter())
        return LogQuery(stages=parts).run

    def _filter(self) -> Stage:
        if self._next.kind != "name":
            raise self._unexpected(self._next)
        name = self._take()
        op = self._take()
        if op.kind in ("name", "end", "string") or op.text in ("|", ")", "["):
            raise self._unknown(name)
        if op.text not in ("=", "==", "!=", "=~", "!~", ">", ">=", "<", "<="):
            raise self._unexpected(op)
        if self._next.kind == "number":
            return _number_filter(name.text, op.text, float(self._take().text))
        if self._next.kind == "duration":
            raise self._unknown(self._next)
        if op.text not in ("=", "!=", "=~", "!~"):
            raise self._unexpected(self._next)
        test = _text_test(op.text, self._string())
        return lambda labels, line: labels if test(labels.get(name.text, "")) else None


def _matcher(name: str, test: Callable[[str], bool]) -> Callable[[Labels], bool]:
    return lambda labels: test(labels.get(name, ""))


def _text_test(op: str, text: str) -> Callable[[str], bool]:
    if op == "=":
        return lambda value: value == text
    if op == "!=":
        return lambda value: value != text
    pattern = _regex(text)
    return lambda value: (pattern.fullmatch(value) is not None) is (op == "=~")


def _number_filter(name: str, op: str, number: float) -> Stage:
    def keep(labels: Labels, _line: str) -> Labels | None:
        if name not in labels:
            return None
        try:
            return labels if _compare(op, float(labels[name]), number) else None
        except ValueError:
            # Like Loki, keep a line whose value is not a number, and add an error label to it.
            return {**labels, "__error__": "LabelFilterErr"}

    return keep


def parse(text: str) -> LogQuery | MetricQuery:
    """Parse a query. Raise LogQLError with the text of the 400 response."""
    return _Parser(text).query()
