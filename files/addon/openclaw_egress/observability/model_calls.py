"""The metrics of model calls: those of OpenTelemetry's semantic conventions, and counters of tokens and cost.

Agents choose the names of models, so `Places` limits the number of time series of each class. Providers, operations
and error types need no such limit, because this package defines their values.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from prometheus_client import CollectorRegistry

from openclaw_egress.observability import catalogue

MAX_MODELS = 64
"""In each class, at most this many combinations of provider, operation and models get their own labels."""
MAX_ERRORS = 64
"""In each class, at most this many combinations of provider, operation, models and error type get their own labels."""
OTHER = "other"
"""Label value for the models beyond `MAX_MODELS`."""
OTHER_ERROR = "_OTHER"
"""Label value for the errors beyond `MAX_ERRORS`, as OpenTelemetry's conventions define it."""
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """The values of one exchange that the metrics need."""

    class_name: str
    operation: str | None
    """None if the exchange is not a call to a model."""
    provider: str | None
    """None if the host belongs to no known provider, such as the operator's own server."""
    requested_model: str | None
    response_model: str | None
    status: int | None
    error_type: str | None
    """One of `records.ERROR_TYPES`, or an HTTP status; None without an error."""
    tokens: Mapping[str, int | None]
    """Token counts by type: input, output, cache_read, cache_write, reasoning. None for an unreported count."""
    cost_usd: float | None
    duration: float
    """Duration of the exchange in seconds."""
    first_chunk: float | None
    """Seconds until the first chunk of the response; None for a response that was not streamed."""

    @property
    def reports_usage(self) -> bool:
        """Return whether the provider reported tokens or a cost, which proves that the model exists."""
        return bool(self.cost_usd) or any(self.tokens.values())


class Places[Value: Hashable]:
    """The combinations of label values that get their own time series.

    Each class has at most ``most`` of them, so that no class can use up another's limit.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._of_class: defaultdict[str, set[Value]] = defaultdict(set)

    def take(self, class_name: str, value: Value) -> bool:
        """Add the value for the class, unless the limit is reached. Return whether it was added, now or earlier."""
        taken = self._of_class[class_name]
        if value not in taken and len(taken) < self._most:
            taken.add(value)
        return value in taken

    def has(self, class_name: str, value: Value) -> bool:
        """Return whether the value was added for the class."""
        return value in self._of_class[class_name]


class _Labels(NamedTuple):
    """The labels that all metrics of OpenTelemetry's conventions share (`catalogue.CALL_LABELS`); empty if unknown."""

    egress_class: str
    gen_ai_operation_name: str
    gen_ai_provider_name: str
    gen_ai_request_model: str
    gen_ai_response_model: str


class ModelCalls:
    """The metrics of calls to models. `count` updates all of them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._tokens = catalogue.CALL_TOKENS.counter(registry)
        self._cost = catalogue.CALL_COST.counter(registry)
        self._usage = catalogue.TOKEN_USAGE.histogram(registry)
        self._duration = catalogue.CALL_DURATION.histogram(registry)
        self._first_chunk = catalogue.FIRST_CHUNK.histogram(registry)
        self._models: Places[tuple[str, ...]] = Places(MAX_MODELS)
        self._requested: Places[tuple[str, ...]] = Places(MAX_MODELS)
        self._errors: Places[tuple[str, ...]] = Places(MAX_ERRORS)

    def count(self, call: Call) -> None:
        """Update the metrics for one exchange, if it is a call to a model or reports usage."""
        if call.reports_usage:
            self._count_usage(call, has_place=self._take_place(call))
        if call.operation is None:
            return
        labels = self._labels(call)
        for kind in ("input", "output"):
            if (count := call.tokens.get(kind)) is not None:
                self._usage.labels(*labels, kind).observe(count)
        self._duration.labels(*self._with_error(labels, call.error_type)).observe(call.duration)
        if call.first_chunk is not None:
            self._first_chunk.labels(*labels).observe(call.first_chunk)

    def _count_usage(self, call: Call, *, has_place: bool) -> None:
        model = (call.response_model or call.requested_model or UNKNOWN) if has_place else OTHER
        who = (call.class_name, call.provider or UNKNOWN, model)
        for kind, count in call.tokens.items():
            if count:
                self._tokens.labels(*who, kind).inc(count)
        if call.cost_usd:
            self._cost.labels(*who).inc(call.cost_usd)

    def _take_place(self, call: Call) -> bool:
        """Assign own labels to the models of a call if the class is below its limit.

        Return whether the models have them.

        Do this only for a call that reports usage, because the usage proves that the model exists.
        """
        wanted = _wanted(call)
        taken = self._models.take(call.class_name, wanted[1:])
        return taken and self._requested.take(call.class_name, wanted[1:4])

    def _labels(self, call: Call) -> _Labels:
        wanted = _wanted(call)
        if self._models.has(call.class_name, wanted[1:]):
            return wanted
        known = self._requested.has(call.class_name, wanted[1:4])
        return wanted._replace(
            gen_ai_request_model=wanted.gen_ai_request_model if known else _other(wanted.gen_ai_request_model),
            gen_ai_response_model=_other(wanted.gen_ai_response_model),
        )

    def _with_error(self, labels: _Labels, error_type: str | None) -> tuple[str, ...]:
        if error_type is None:
            return (*labels, "")
        if self._errors.take(labels.egress_class, (*labels[1:], error_type)):
            return (*labels, error_type)
        return (*labels[:3], _other(labels.gen_ai_request_model), "", OTHER_ERROR)


def _wanted(call: Call) -> _Labels:
    """Return the labels of a call with the names of its models, before `OTHER` replaces any of them."""
    chosen = (call.operation, call.provider, call.requested_model, call.response_model)
    return _Labels(call.class_name, *(text or "" for text in chosen))


def _other(model: str) -> str:
    """Return `OTHER`, the label value of all models beyond the limit; empty if the call has no model."""
    return model and OTHER
