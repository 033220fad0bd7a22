"""The proxy's Prometheus metrics, in their own registry. Naming: https://prometheus.io/docs/practices/naming/."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

PREFIX = "openclaw_egress"


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
        self.hook_failures = Counter(
            f"{PREFIX}_hook_failures", "Exceptions in hooks; the traffic was refused.", registry=self.registry
        )

        self.unrecorded = Counter(
            f"{PREFIX}_unrecorded",
            "Requests refused with 503 because they could not be recorded.",
            ["egress_class"],
            registry=self.registry,
        )

    def gauges(self, read: Callable[[], Mapping[str, tuple[str, float]]]) -> None:
        """Register a function that returns ``{name: (help, value)}`` at each scrape."""
        self.registry.register(_Gauges(read))

    def by_class(self, name: str, text: str, read: Callable[[], Mapping[str, float]]) -> None:
        """Register a gauge with one value per class, read at each scrape."""
        self.by_label(name, text, "egress_class", read)

    def by_label(self, name: str, text: str, label: str, read: Callable[[], Mapping[str, float]]) -> None:
        """Register a gauge with one value per value of a label, read at each scrape."""
        self.registry.register(_ByLabel(name, text, label, read))


class _ByLabel(Collector):
    def __init__(self, name: str, text: str, label: str, read: Callable[[], Mapping[str, float]]) -> None:
        self._name, self._text, self._label, self._read = name, text, label, read

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(f"{PREFIX}_{self._name}", self._text, labels=[self._label])
        for label, value in self._read().items():
            family.add_metric([label], value)
        yield family


class _Gauges(Collector):
    def __init__(self, read: Callable[[], Mapping[str, tuple[str, float]]]) -> None:
        self._read = read

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for name, (text, value) in self._read().items():
            yield GaugeMetricFamily(f"{PREFIX}_{name}", text, value=value)
