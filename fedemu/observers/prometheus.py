"""The run as Prometheus metrics, over HTTP while it goes on. METRICS.md says what each one means.

Every series has the constant labels `run` and `clock`, and none names a client: what clients do is told by group.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, start_http_server

from fedemu.errors import RunError
from fedemu.events import (
    CallRetried,
    ClientEvent,
    ClientJoined,
    ClientLeft,
    Evaluated,
    Event,
    RoundClosed,
    RoundFailed,
    TargetReached,
    TaskEvent,
    TaskReceived,
    TaskSent,
    TrainingFinished,
    UpdateLost,
    UpdateReceived,
    UpdateRejected,
    UpdateSent,
)
from fedemu.types import Bytes, ClientId, Seconds

DURATIONS = tuple(step * 10.0**power for power in range(-3, 5) for step in (1, 2, 5))
"""Buckets from 1 ms to 14 h, three a decade: an emulated round may take anything."""
STALENESS = (0, 1, 2, 4, 8, 16, 32, 64)


class _Registry(CollectorRegistry):
    """Adds the constant labels; leaves out what is not known (nan) and `_created` series, which hold real time."""

    def __init__(self, **constant: str) -> None:
        self._constant = constant
        super().__init__()

    def collect(self) -> Iterable[Metric]:
        for metric in super().collect():
            metric.samples = [
                sample._replace(labels={**self._constant, **sample.labels})
                for sample in metric.samples
                if not sample.name.endswith("_created") and not math.isnan(sample.value)
            ]
            yield metric


@dataclass(slots=True)
class _Trip:
    """One task on its way out and back, as far as it is known here."""

    sent: Seconds
    trained: Seconds | None = None
    down: Bytes = 0
    up: Bytes = 0


class Metrics:
    """Keeps the metrics of one run.

    Args:
        run: Name of the run.
        clock: virtual or real.
    """

    def __init__(self, *, run: str, clock: str) -> None:
        self.registry = _Registry(run=run, clock=clock)
        gauge, counter = partial(Gauge, registry=self.registry), partial(Counter, registry=self.registry)
        times = partial(Histogram, registry=self.registry, buckets=DURATIONS)
        self._time = gauge("fedemu_run_seconds", "Emulated time of the last event")
        self._accuracy = gauge("fedemu_accuracy_ratio", "Test accuracy of the global model")
        self._accuracy.set(math.nan)
        self._to_target = gauge("fedemu_time_to_target_seconds", "Emulated time when a target was reached", ["target"])
        self._rounds = counter("fedemu_rounds_total", "Rounds that ended", ["outcome"])
        self._duration = times("fedemu_round_seconds", "Emulated duration of closed rounds")
        self._phase = times("fedemu_phase_seconds", "Emulated time of clients in a phase", ["group", "phase"])
        self._updates = counter("fedemu_updates_total", "Updates by what became of them", ["group", "outcome"])
        self._staleness = Histogram(
            "fedemu_update_staleness",
            "Global versions made between an update's task and its arrival",
            registry=self.registry,
            buckets=STALENESS,
        )
        self._bytes = counter("fedemu_wire_bytes_total", "Bytes of tasks and updates on links", ["group", "direction"])
        self._calls = counter("fedemu_calls_total", "Tasks and updates sent, all attempts", ["group", "outcome"])
        self._clients = gauge("fedemu_clients", "Connected clients", ["state"])
        self._connected: dict[ClientId, None] = {}
        self._trips: dict[tuple[ClientId, int], _Trip] = {}
        self._working: dict[ClientId, int] = {}
        """The round that a client works for."""
        self._arrived: list[UpdateReceived] = []
        """Received, and not yet in a global model."""
        self._closed: Seconds = 0.0
        """When the last round closed: evaluating its model is not the run's time."""

    @contextmanager
    def serve(self, port: int, address: str = "0.0.0.0") -> Iterator[int]:  # noqa: S104  containers are scraped from outside
        """Answer scrapes over HTTP inside the context; port 0 takes a free one. Gives the port."""
        try:
            server, thread = start_http_server(port, address, self.registry)
        except OSError as error:
            raise RunError(
                f"metrics cannot be served on port {port}: {error.strerror}; take a free one, or 0"
            ) from error
        try:
            yield server.server_port
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def __call__(self, event: Event) -> None:
        self._time.set(event.at)
        match event:
            case TaskEvent():
                self._take(event)
            case RoundClosed():
                self._close(event)
            case RoundFailed():
                self._rounds.labels("failed").inc()
            case Evaluated():
                self._accuracy.set(event.accuracy)
            case TargetReached():
                self._to_target.labels(f"{event.accuracy:g}").set(self._closed)
            case ClientJoined():
                self._connected[event.client] = None
                self._count()
            case ClientLeft():
                self._connected.pop(event.client, None)
                self._working.pop(event.client, None)
                self._count()
            case _:
                pass

    def _take(self, event: TaskEvent) -> None:
        trip = self._trips.get((event.client, event.round))
        match event:
            case TaskSent():
                trip = self._trips.setdefault((event.client, event.round), _Trip(sent=event.at))
                trip.down += event.bytes
                self._working[event.client] = event.round
                self._count()
                self._call(event, "sent")
            case TaskReceived() if trip is not None:
                self._observe(event, "download", event.at - trip.sent)
            case TrainingFinished():
                self._observe(event, "compute", event.duration)
                if trip is not None:
                    trip.trained = event.at
            case UpdateSent():
                self._call(event, "sent")
                if trip is None:
                    self._carry(event, up=event.bytes)
                else:
                    trip.up += event.bytes
            case CallRetried():
                self._call(event, "retried")
            case UpdateReceived():
                self._receive(event, trip)
            case UpdateLost():
                self._lose(event, trip)
            case UpdateRejected():
                self._conclude(event, trip)
                self._settle(event, "rejected")
            case _:
                pass

    def _receive(self, event: UpdateReceived, trip: _Trip | None) -> None:
        self._staleness.observe(event.staleness)
        self._arrived.append(event)
        if trip is not None:
            trip.up = trip.up or event.bytes  # a server whose clients are other processes sees no UpdateSent
            if trip.trained is not None:
                self._observe(event, "upload", event.at - trip.trained)
        self._conclude(event, trip)

    def _lose(self, event: UpdateLost, trip: _Trip | None) -> None:
        if trip is not None:
            trip.down -= event.unsent_down
            # a server whose clients are other processes has seen no UpdateSent, and added nothing
            trip.up = max(0, trip.up - event.unsent_up)
        else:  # received, but late or unused
            self._arrived = [e for e in self._arrived if (e.client, e.round) != (event.client, event.round)]
        self._conclude(event, trip)
        self._settle(event, "late" if event.reason in ("late", "unused") else "lost")
        if event.reason.startswith("undelivered"):
            self._call(event, "failed")

    def _conclude(self, event: TaskEvent, trip: _Trip | None) -> None:
        """End a trip. Only now its bytes are certain: a transfer that was cut off had announced more than it sent."""
        if trip is not None:
            self._carry(event, down=trip.down, up=trip.up)
            del self._trips[event.client, event.round]
        if self._working.get(event.client) == event.round:  # else it was given up, and works for another round already
            del self._working[event.client]
            self._count()

    def _close(self, event: RoundClosed) -> None:
        self._rounds.labels("closed").inc()
        self._closed = event.at
        self._duration.observe(event.duration)
        for update in self._arrived:
            self._observe(update, "wait", event.at - update.at)
            self._settle(update, "aggregated")
        self._arrived.clear()

    def _count(self) -> None:
        self._clients.labels("working").set(len(self._working))
        self._clients.labels("idle").set(len(self._connected) - len(self._working))

    def _observe(self, event: ClientEvent, phase: str, duration: Seconds) -> None:
        self._phase.labels(event.group, phase).observe(duration)

    def _settle(self, event: ClientEvent, outcome: str) -> None:
        self._updates.labels(event.group, outcome).inc()

    def _call(self, event: ClientEvent, outcome: str) -> None:
        self._calls.labels(event.group, outcome).inc()

    def _carry(self, event: ClientEvent, *, down: Bytes = 0, up: Bytes = 0) -> None:
        self._bytes.labels(event.group, "down").inc(down)
        self._bytes.labels(event.group, "up").inc(up)
