"""The proxy's Prometheus metrics, in their own registry. `catalogue` describes each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from openclaw_egress.observability import catalogue
from openclaw_egress.observability.catalogue import BY_NAME, PREFIX, Metric
from openclaw_egress.observability.model_calls import Call, ModelCalls

__all__ = ["Call", "Metrics"]


class Metrics:
    """The counters that the hooks increment, and the gauges that each scrape reads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.allowed = catalogue.ALLOWED.counter(self.registry)
        self.denied = catalogue.DENIED.counter(self.registry)
        self.exchanges = catalogue.EXCHANGES.counter(self.registry)
        self.duration = catalogue.DURATION.histogram(self.registry)
        self.unrecorded = catalogue.UNRECORDED.counter(self.registry)
        self.hook_failures = catalogue.HOOK_FAILURES.counter(self.registry)
        self._responses = catalogue.RESPONSES.counter(self.registry)
        self._model_calls = ModelCalls(self.registry)

    def count_call(self, call: Call) -> None:
        """Count the response of one exchange and, for a call to a model, its tokens, cost and durations."""
        self._responses.labels(call.class_name, str(call.status) if call.status else "none").inc()
        self._model_calls.count(call)

    def gauges(self, read: Callable[[], Mapping[str, float]]) -> None:
        """Register gauges without labels. Each scrape calls ``read``, which returns their values by name.

        The names do not include `PREFIX`.
        """
        self.registry.register(_Gauges(read))

    def by_label(self, metric: Metric, read: Callable[[], Mapping[str, float]]) -> None:
        """Register a gauge with one label. Each scrape calls ``read``, which returns a number for each label value."""
        self.by_labels(metric, lambda: {(value,): number for value, number in read().items()})

    def by_labels(self, metric: Metric, read: Callable[[], Mapping[tuple[str, ...], float]]) -> None:
        """Register a gauge with several labels. Each scrape calls ``read``; keys of its result are label values."""
        self.registry.register(_ByLabels(metric, read))


class _ByLabels(Collector):
    def __init__(self, metric: Metric, read: Callable[[], Mapping[tuple[str, ...], float]]) -> None:
        self._metric, self._read = metric, read

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield self._metric.gauge(self._read().items())


class _Gauges(Collector):
    def __init__(self, read: Callable[[], Mapping[str, float]]) -> None:
        self._read = read

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for name, value in self._read().items():
            yield BY_NAME[f"{PREFIX}_{name}"].gauge([((), value)])
