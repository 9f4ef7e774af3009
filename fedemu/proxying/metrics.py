"""A proxy as Prometheus metrics. METRICS.md says what each one means."""

from collections.abc import Iterator
from functools import partial

from prometheus_client import CollectorRegistry, Histogram, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from fedemu.net.proxy.proxy import DIRECTIONS, Direction, Proxy
from fedemu.observers.prometheus import DELAYS, ERRORS
from fedemu.types import Bytes, Seconds


class ProxyMetrics(Collector):
    """Keeps the delays of a proxy's chunks, and asks the proxy for the rest when it is asked."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        histogram = partial(Histogram, registry=self.registry)
        self._delay = histogram(
            "fedemu_proxy_delay_seconds",
            "Delay of chunks from their arrival to their departure, as asked for and as it was",
            ["direction", "kind"],
            buckets=DELAYS,
        )
        self._error = histogram(
            "fedemu_proxy_delay_error_seconds",
            "Delay of chunks beyond what was asked for",
            ["direction"],
            buckets=ERRORS,
        )
        self._bytes: dict[Direction, Bytes] = dict.fromkeys(DIRECTIONS, 0)
        self._proxy: Proxy | None = None

    def watch(self, proxy: Proxy) -> None:
        """Tell of this proxy."""
        self._proxy = proxy
        self.registry.register(self)

    def __call__(self, direction: Direction, size: Bytes, requested: Seconds, achieved: Seconds) -> None:
        self._bytes[direction] += size
        self._delay.labels(direction, "requested").observe(requested)
        self._delay.labels(direction, "achieved").observe(achieved)
        self._error.labels(direction).observe(achieved - requested)

    def collect(self) -> Iterator[Metric]:
        """Yield what the proxy knows itself."""
        assert self._proxy is not None
        yield GaugeMetricFamily("fedemu_proxy_connections", "Open connections", value=len(self._proxy.connections))
        ended = CounterMetricFamily(
            "fedemu_proxy_connections_ended", "Connections that ended, by how", labels=["outcome"]
        )
        for outcome, number in self._proxy.outcomes.items():
            ended.add_metric([outcome], number)
        yield ended
        carried = CounterMetricFamily("fedemu_proxy_bytes", "Bytes handed to their receiver", labels=["direction"])
        queued = GaugeMetricFamily("fedemu_proxy_queue_bytes", "Bytes on the emulated link", labels=["direction"])
        for direction in DIRECTIONS:
            carried.add_metric([direction], self._bytes[direction])
            lanes = [c.lanes[direction] for c in self._proxy.connections.values() if c.lanes]
            queued.add_metric([direction], sum(lane.queued for lane in lanes))
        yield from (carried, queued)
        yield GaugeMetricFamily(
            "fedemu_proxy_enabled", "1 where the proxy takes connections, else 0", value=int(self._proxy.is_enabled)
        )
