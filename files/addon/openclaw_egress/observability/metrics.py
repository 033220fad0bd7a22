"""The proxy's Prometheus metrics, in their own registry. Naming: https://prometheus.io/docs/practices/naming/."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

PREFIX = "openclaw_egress"


FIRST_CHUNK_BUCKETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""The boundaries that the semantic conventions give for ``gen_ai.client.operation.time_to_first_chunk``."""
MAX_MODELS = 64
"""Maximum number of models of a class, each at one provider, that have labels of their own: agents choose models."""
OTHER = "other"
"""The label of all further models."""


class Places[Value: Hashable]:
    """The values that have labels of their own: at most ``most`` of each class, so no class can use up another's."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._of_class: defaultdict[str, set[Value]] = defaultdict(set)

    def take(self, class_name: str, value: Value) -> bool:
        """Return whether the value has a place; give it one if the class has one left."""
        taken = self._of_class[class_name]
        if value not in taken and len(taken) < self._most:
            taken.add(value)
        return value in taken


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What the metrics count of one exchange. ``provider`` is None if the host is not a model provider."""

    class_name: str
    provider: str | None
    model: str | None
    status: int | None
    tokens: Mapping[str, int | None]
    """By ``type``: input, output, cache_read, cache_write, reasoning."""
    cost_usd: float | None
    first_chunk: float | None
    """Seconds; None for a response that was not streamed."""


class Metrics:
    """The counters that the hooks increment, and the gauges that each scrape reads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.allowed = Counter(
            f"{PREFIX}_allowed",
            "Requests and tunnels allowed.",
            ["egress_class", "inspect"],
            registry=self.registry,
        )
        self.denied = Counter(
            f"{PREFIX}_denied",
            "Requests and tunnels denied (enforced=true) or only reported (enforced=false).",
            ["egress_class", "rule", "code", "enforced"],
            registry=self.registry,
        )
        self.exchanges = Counter(
            f"{PREFIX}_exchanges", "Recorded exchanges by outcome.", ["egress_class", "outcome"], registry=self.registry
        )
        self.duration = Histogram(
            f"{PREFIX}_exchange_duration_seconds",
            "Time from the first byte of the request to the last byte of the response.",
            ["egress_class"],
            buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900),
            registry=self.registry,
        )
        self._tokens = Counter(
            f"{PREFIX}_tokens",
            "Tokens that providers reported. Input includes cached tokens, output includes reasoning.",
            ["egress_class", "provider", "model", "type"],
            registry=self.registry,
        )
        self._cost = Counter(
            f"{PREFIX}_cost_usd",
            "Known cost of calls in US dollars.",
            ["egress_class", "provider", "model"],
            registry=self.registry,
        )
        self._responses = Counter(
            f"{PREFIX}_responses",
            "Recorded exchanges by the HTTP status of the response; none: no response.",
            ["egress_class", "status"],
            registry=self.registry,
        )
        self._first_chunk = Histogram(
            "gen_ai_client_operation_time_to_first_chunk_seconds",
            "Time from the request to the first chunk of a streamed response.",
            ["egress_class", "provider"],
            buckets=FIRST_CHUNK_BUCKETS,
            registry=self.registry,
        )
        self._models: Places[tuple[str, str]] = Places(MAX_MODELS)
        self.hook_failures = Counter(
            f"{PREFIX}_hook_failures", "Exceptions in hooks; the traffic was refused.", registry=self.registry
        )

        self.unrecorded = Counter(
            f"{PREFIX}_unrecorded",
            "Requests refused with 503 because they could not be recorded.",
            ["egress_class"],
            registry=self.registry,
        )

    def count_call(self, call: Call) -> None:
        """Count the response, the tokens and the cost of one exchange."""
        self._responses.labels(call.class_name, str(call.status) if call.status else "none").inc()
        if call.provider is None:
            return
        # Without tokens or cost from the provider the model may not exist, so it takes no place.
        if call.cost_usd or any(call.tokens.values()):
            self._count_usage(call, call.provider)
        if call.first_chunk is not None:
            self._first_chunk.labels(call.class_name, call.provider).observe(call.first_chunk)

    def _count_usage(self, call: Call, provider: str) -> None:
        model = call.model or "unknown"
        who = (call.class_name, provider, model if self._models.take(call.class_name, (provider, model)) else OTHER)
        for kind, count in call.tokens.items():
            if count:
                self._tokens.labels(*who, kind).inc(count)
        if call.cost_usd:
            self._cost.labels(*who).inc(call.cost_usd)

    def gauges(self, read: Callable[[], Mapping[str, tuple[str, float]]]) -> None:
        """Register a function that returns ``{name: (help, value)}`` at each scrape."""
        self.registry.register(_Gauges(read))

    def by_class(self, name: str, text: str, read: Callable[[], Mapping[str, float]]) -> None:
        """Register a gauge with one value per class, read at each scrape."""
        self.by_label(name, text, "egress_class", read)

    def by_label(self, name: str, text: str, label: str, read: Callable[[], Mapping[str, float]]) -> None:
        """Register a gauge with one value per value of a label, read at each scrape."""
        self.by_labels(name, text, [label], lambda: {(value,): number for value, number in read().items()})

    def by_labels(
        self, name: str, text: str, labels: Sequence[str], read: Callable[[], Mapping[tuple[str, ...], float]]
    ) -> None:
        """Register a gauge with one value per combination of labels, read at each scrape."""
        self.registry.register(_ByLabels(name, text, labels, read))


class _ByLabels(Collector):
    def __init__(
        self, name: str, text: str, labels: Sequence[str], read: Callable[[], Mapping[tuple[str, ...], float]]
    ) -> None:
        self._name, self._text, self._labels, self._read = name, text, labels, read

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(f"{PREFIX}_{self._name}", self._text, labels=self._labels)
        for labels, value in self._read().items():
            family.add_metric(labels, value)
        yield family


class _Gauges(Collector):
    def __init__(self, read: Callable[[], Mapping[str, tuple[str, float]]]) -> None:
        self._read = read

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for name, (text, value) in self._read().items():
            yield GaugeMetricFamily(f"{PREFIX}_{name}", text, value=value)
