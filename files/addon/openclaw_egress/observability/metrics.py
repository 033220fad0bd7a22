"""The proxy's Prometheus metrics, in their own registry. Naming: https://prometheus.io/docs/practices/naming/."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from openclaw_egress.observability.model_calls import PREFIX, Call, ModelCalls

__all__ = ["Call", "Metrics"]


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
        self._responses = Counter(
            f"{PREFIX}_responses",
            "Recorded exchanges by the HTTP status of the response; none: no response.",
            ["egress_class", "status"],
            registry=self.registry,
        )
        self._model_calls = ModelCalls(self.registry)
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
        """Count the response of one exchange, and tokens, cost and times of a call to a model."""
        self._responses.labels(call.class_name, str(call.status) if call.status else "none").inc()
        self._model_calls.count(call)

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
