"""The outcome of a run, folded from its events: what stands in `result.json`.

Bytes are what the links carried, all attempts included, and `wasted` is all of them but one copy of the task and one of
the update for each update that went into a global model; `trips` says what that means where clients are elsewhere.
"""

import math
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fedemu.events import (
    CallRetried,
    DelayMeasured,
    EnergySpent,
    Evaluated,
    Event,
    RoundClosed,
    RunFinished,
    RunResumed,
    RunStarted,
    TaskSent,
    TransferEnded,
    UpdateLost,
    UpdateReceived,
    UpdateRejected,
    UpdateSent,
)
from fedemu.observers.transfers import Transfers, spread
from fedemu.observers.trips import Trips
from fedemu.types import Bytes, Seconds


class Outcome:
    """Knows at any event how the run stands.

    Args:
        target: Accuracy that the run is for, 0..1; None without one.
        targets: Accuracies to report beside it.
    """

    def __init__(self, *, target: float | None, targets: Sequence[float] = ()) -> None:
        self._target, self._targets = target, targets
        self._reached: dict[float, dict[str, Any]] = {}
        self._started: RunStarted | None = None
        self._finished: RunFinished | None = None
        self._round, self._time = 0, 0.0
        self._final: dict[str, Any] | None = None
        self._best: dict[str, Any] | None = None
        self._trips, self._transfers = Trips(), Transfers()
        self._energy: dict[str, dict[str, float]] = {}
        """Joules by group and phase."""
        self._delays: dict[tuple[str, str], _Delays] = {}
        """By group and direction."""
        self._tasks = self._uploads = self._downloads = self._retried = self._undelivered = 0
        self._aggregated = self._late = self._given_up = self._lost = 0
        self._restarts: list[Seconds] = []
        """How long the server was gone, each time."""
        self._rejections = Counter[str]()
        """By reason."""

    def __call__(self, event: Event) -> None:
        self._trips.follow(event)
        match event:
            case TaskSent():
                self._tasks += 1
            case UpdateSent():
                self._uploads += 1
            case UpdateReceived():
                self._downloads += 1
            case UpdateLost():
                self._lose(event)
            case UpdateRejected():
                self._rejections[event.reason] += 1
            case CallRetried():
                self._retried += 1
            case RoundClosed():
                self._aggregated += event.aggregated
                self._given_up += event.late
                self._round, self._time = event.round, event.at
            case Evaluated():
                self._evaluate(event)
            case TransferEnded():
                self._transfers.follow(event)
            case EnergySpent():
                energy = self._energy.setdefault(event.group, {})
                energy[event.phase] = energy.get(event.phase, 0.0) + event.joules
            case DelayMeasured():
                self._delays.setdefault((event.group, event.direction), _Delays()).add(event)
            case RunStarted():
                self._started = event
            case RunResumed():
                self._restarts.append(event.down)
            case RunFinished():
                self._finished = event
                self._time = event.time
            case _:
                pass

    def _lose(self, event: UpdateLost) -> None:
        if event.reason in ("late", "unused"):
            self._late += 1
        else:
            self._lost += 1
        self._undelivered += event.reason.startswith("undelivered")

    def _evaluate(self, event: Evaluated) -> None:
        # its model is from the end of the round: on the real clock, evaluating takes time that is not the run's
        where = {"round": event.round, "time": self._time}
        loss = event.loss if math.isfinite(event.loss) else None
        self._final = {"accuracy": event.accuracy, "loss": loss, **where}
        if self._best is None or event.accuracy > self._best["accuracy"]:
            self._best = {"accuracy": event.accuracy, **where}
        for accuracy in (*self._targets, *([] if self._target is None else [self._target])):
            if event.accuracy >= accuracy:
                self._reached.setdefault(accuracy, self._so_far(self._time, event.round))

    @property
    def _bytes(self) -> dict[str, Bytes]:
        return {"up": self._trips.up, "down": self._trips.down}

    def _so_far(self, time: Seconds, round: int) -> dict[str, Any]:
        # all that clients were asked for and that are settled, whether they helped or not; a client that was given up
        # says so later, and one that is cancelled at the end of the run no round has given up
        settled = self._aggregated + max(self._late, self._given_up) + self._lost + self._rejections.total()
        return {"time": time, "round": round, "updates": settled, "bytes": self._bytes}

    def _reach(self, accuracy: float) -> dict[str, Any]:
        reached = self._reached.get(accuracy)
        cost = self._so_far(self._time, self._round) if reached is None else reached
        return {"accuracy": accuracy, "reached": reached is not None, **cost}

    def as_dict(
        self, *, clock: str, transport: str, data: Mapping[str, Any], wall_seconds: float, digest: str
    ) -> dict[str, Any]:
        """Return the content of `result.json`; what is not in events is given.

        A target that was not reached is censored: its time, round, updates and bytes are those at the end.

        Args:
            clock: virtual or real.
            transport: memory or grpc.
            data: The data set and how it was verified.
            wall_seconds: Real time that the run took.
            digest: SHA-256 of `events.jsonl`.

        Raises:
            AssertionError: The run has not started.
        """
        assert self._started is not None
        return {
            "name": self._started.name,
            "seed": self._started.seed,
            "clock": clock,
            "transport": transport,
            "version": self._started.version,
            "data": dict(data),
            "target": None if self._target is None else self._reach(self._target),
            "targets": [self._reach(accuracy) for accuracy in self._targets],
            "stopped_by": None if self._finished is None else self._finished.reason,
            "final": self._final,
            "best": self._best,
            "emulated_seconds": self._time,
            "wall_seconds": wall_seconds,
            "bytes": {**self._bytes, "wasted": self._trips.up + self._trips.down - self._trips.used},
            "updates": {
                "aggregated": self._aggregated,
                "late": self._late,
                "lost": self._lost,
                "rejected": self._rejections.total(),
            },
            **({"rejections": dict(sorted(self._rejections.items()))} if self._rejections else {}),
            "calls": {
                "sent": self._tasks + (self._uploads or self._downloads),
                "retried": self._retried,
                "failed": self._undelivered,
            },
            **({"restarts": self._gone} if self._restarts else {}),
            "links": self._transfers.as_dict(),
            **({"energy": self._energy} if self._energy and self._trips.sees_uploads else {}),
            **({"delays": self._delays_by_group()} if clock == "real" else {}),
            "digest": digest,
        }

    @property
    def _gone(self) -> dict[str, Any]:
        return {"count": len(self._restarts), "seconds": sum(self._restarts)}

    def _delays_by_group(self) -> dict[str, dict[str, Any]]:
        groups: dict[str, dict[str, Any]] = {}
        for (group, direction), delays in sorted(self._delays.items()):
            groups.setdefault(group, {})[direction] = delays.as_dict()
        return groups


class _Delays:
    """Every delay of one group's links in one direction: 16 bytes a message, so that percentiles are exact."""

    def __init__(self) -> None:
        self._requested, self._achieved = array("d"), array("d")

    def add(self, event: DelayMeasured) -> None:
        self._requested.append(event.requested)
        self._achieved.append(event.achieved)

    def as_dict(self) -> dict[str, Any]:
        error = array("d", (was - asked for asked, was in zip(self._requested, self._achieved, strict=True)))
        return {
            "count": len(self._requested),
            "requested": spread(self._requested),
            "achieved": spread(self._achieved),
            "error": spread(error),
        }
