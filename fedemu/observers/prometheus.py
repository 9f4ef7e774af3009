"""The run as Prometheus metrics, over HTTP while it goes on. METRICS.md says what each one means.

Every series has the constant labels `run` and `clock`, and none names a client: what clients do is told by group.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, start_http_server

from fedemu.errors import RunError
from fedemu.events import (
    CallRetried,
    ClientEvent,
    ClientJoined,
    ClientLeft,
    DelayMeasured,
    EnergySpent,
    Evaluated,
    Event,
    Measurement,
    RoundClosed,
    RoundFailed,
    RunFinished,
    RunStarted,
    TargetReached,
    TaskEvent,
    TaskSent,
    TransferEnded,
    UpdateLost,
    UpdateReceived,
    UpdateRejected,
    UpdateSent,
)
from fedemu.observers.phases import spent
from fedemu.observers.trips import Trip, Trips
from fedemu.types import Bytes, ClientId, Seconds

DURATIONS = tuple(step * 10.0**power for power in range(-3, 5) for step in (1, 2, 5))
"""Buckets from 1 ms to 14 h, three a decade: an emulated round may take anything."""
DELAYS = tuple(step * 10.0**power for power in range(-4, 2) for step in (1, 2, 5))
"""Buckets from 0.1 ms to 50 s."""
ERRORS = (*(step * 10.0**power for power in range(-4, 0) for step in (1, 2, 5)), 1.0)
"""Buckets from 0.1 ms to 1 s."""
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


class Metrics:
    """Keeps the metrics of one run.

    Args:
        run: Name of the run.
        clock: virtual or real.
        target: Accuracy that stops the run, 0..1; None without one.
    """

    def __init__(self, *, run: str, clock: str, target: float | None = None) -> None:
        self.registry = _Registry(run=run, clock=clock)
        gauge, counter = partial(Gauge, registry=self.registry), partial(Counter, registry=self.registry)
        times = partial(Histogram, registry=self.registry, buckets=DURATIONS)
        self._about = gauge("fedemu_run_info", "What run it is", ["seed", "version"])
        self._over = gauge("fedemu_run_finished", "1 once the run is over, else 0")
        self._time = gauge("fedemu_run_seconds", "Emulated time of the last event")
        self._accuracy = gauge("fedemu_accuracy_ratio", "Test accuracy of the global model")
        self._loss = gauge("fedemu_loss", "Test loss of the global model")
        self._target = gauge("fedemu_target_accuracy_ratio", "Accuracy that stops the run")
        for known, value in ((self._accuracy, None), (self._loss, None), (self._target, target)):
            known.set(math.nan if value is None else value)
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
        link = ["group", "direction"]
        self._transfers = counter("fedemu_transfers_total", "Attempts at tasks and updates, ended", [*link, "outcome"])
        self._transfer = times("fedemu_transfer_seconds", "Emulated time from first to last byte of a transfer", link)
        self._queued = counter(
            "fedemu_transfer_queued_seconds_total", "Emulated time that transfers lost to others and to outages", link
        )
        self._retransmitted = counter(
            "fedemu_retransmitted_segments_total", "Segments that were lost on links and sent again", link
        )
        self._energy = counter("fedemu_energy_joules_total", "Energy of devices", ["group", "phase"])
        self._clients = gauge("fedemu_clients", "Connected clients", ["state"])
        self._delay = Histogram(
            "fedemu_link_delay_seconds",
            "Delay of messages on emulated links, as asked for and as it was",
            ["group", "direction", "kind"],
            registry=self.registry,
            buckets=DELAYS,
        )
        self._error = Histogram(
            "fedemu_link_delay_error_seconds",
            "Delay of messages on emulated links beyond what was asked for",
            ["group", "direction"],
            registry=self.registry,
            buckets=ERRORS,
        )
        self._trips = Trips()
        self._connected: dict[ClientId, None] = {}
        self._working: dict[ClientId, int] = {}
        """The round that a client works for."""
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
        if isinstance(event, Measurement):
            self._measure(event)
            return
        self._time.set(event.at)
        carried = self._carried
        trips = self._trips.follow(event)
        for phase in spent(event, trips):
            self._phase.labels(phase.group, phase.phase).observe(phase.seconds)
        match event:
            case TaskEvent():
                for direction, now, before in zip(("down", "up"), self._carried, carried, strict=True):
                    if now > before:
                        self._bytes.labels(event.group, direction).inc(now - before)
                self._take(event, trips[0] if trips else None)
            case RoundClosed():
                self._rounds.labels("closed").inc()
                self._closed = event.at
                self._duration.observe(event.duration)
                for trip in trips:
                    self._updates.labels(trip.group, "aggregated").inc()
            case RunStarted():
                self._about.labels(str(event.seed), event.version).set(1)
            case RunFinished():
                self._over.set(1)
            case RoundFailed():
                self._rounds.labels("failed").inc()
            case Evaluated():
                self._accuracy.set(event.accuracy)
                self._loss.set(event.loss if math.isfinite(event.loss) else math.nan)
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

    @property
    def _carried(self) -> tuple[Bytes, Bytes]:
        return self._trips.down, self._trips.up

    def _take(self, event: TaskEvent, trip: Trip | None) -> None:
        match event:
            case TaskSent():
                self._working[event.client] = event.round
                self._count()
                self._call(event, "sent")
            case UpdateSent():
                self._call(event, "sent")
            case CallRetried():
                self._call(event, "retried")
            case TransferEnded():
                self._end(event)
            case EnergySpent():
                self._energy.labels(event.group, event.phase).inc(event.joules)
            case UpdateReceived():
                self._staleness.observe(event.staleness)
                self._rest(event)
            case UpdateLost():
                self._settle(event, "late" if event.reason in ("late", "unused") else "lost", trip)
                if event.reason.startswith("undelivered"):
                    self._call(event, "failed")
            case UpdateRejected():
                self._settle(event, "rejected", trip)
            case _:
                pass

    def _end(self, event: TransferEnded) -> None:
        link = event.group, event.direction
        self._transfers.labels(*link, event.outcome).inc()
        self._retransmitted.labels(*link).inc(event.retransmitted)
        if event.outcome in ("delivered", "dropped"):
            self._transfer.labels(*link).observe(event.at - event.began)
            self._queued.labels(*link).inc(event.queued)

    def _settle(self, event: TaskEvent, outcome: str, trip: Trip | None) -> None:
        self._updates.labels(event.group, outcome).inc()
        if trip is None or trip.arrived is None:  # else it rests since then, or works on the next
            self._rest(event)

    def _rest(self, event: TaskEvent) -> None:
        if self._working.get(event.client) == event.round:  # else it was given up, and works for another round already
            del self._working[event.client]
            self._count()

    def _count(self) -> None:
        self._clients.labels("working").set(len(self._working))
        self._clients.labels("idle").set(len(self._connected) - len(self._working))

    def _call(self, event: ClientEvent, outcome: str) -> None:
        self._calls.labels(event.group, outcome).inc()

    def _measure(self, event: Measurement) -> None:
        if isinstance(event, DelayMeasured):
            link = event.group, event.direction
            self._delay.labels(*link, "requested").observe(event.requested)
            self._delay.labels(*link, "achieved").observe(event.achieved)
            self._error.labels(*link).observe(event.achieved - event.requested)
