"""The outcome of a run, folded from its events: what stands in `result.json`.

Bytes are what the links carried, all attempts included: what TaskSent and UpdateSent announced, less what UpdateLost
says never left. A server whose clients are other processes sees no UpdateSent; there the updates that it received stand
for those that were sent.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fedemu.events import (
    CallRetried,
    Evaluated,
    Event,
    RoundClosed,
    RunFinished,
    RunStarted,
    TaskSent,
    UpdateLost,
    UpdateReceived,
    UpdateRejected,
    UpdateSent,
)
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
        self._down = self._sent = self._received = self._wasted = 0
        self._tasks = self._uploads = self._downloads = self._retried = self._undelivered = 0
        self._aggregated = self._late = self._given_up = self._lost = self._rejected = 0

    def __call__(self, event: Event) -> None:
        match event:
            case TaskSent():
                self._tasks += 1
                self._down += event.bytes
            case UpdateSent():
                self._uploads += 1
                self._sent += event.bytes
            case UpdateReceived():
                self._downloads += 1
                self._received += event.bytes
            case UpdateLost():
                self._lose(event)
            case UpdateRejected():
                self._rejected += 1
            case CallRetried():
                self._retried += 1
            case RoundClosed():
                self._aggregated += event.aggregated
                self._given_up += event.late
                self._round, self._time = event.round, event.at
            case Evaluated():
                self._evaluate(event)
            case RunStarted():
                self._started = event
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
        self._wasted += event.wasted
        self._down -= event.unsent_down
        self._sent -= event.unsent_up

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
        return {"up": self._sent if self._uploads else self._received, "down": self._down}

    def _so_far(self, time: Seconds, round: int) -> dict[str, Any]:
        # all that clients were asked for and that are settled, whether they helped or not; a client that was given up
        # says so later, and one that is cancelled at the end of the run no round has given up
        settled = self._aggregated + max(self._late, self._given_up) + self._lost + self._rejected
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
            "bytes": {**self._bytes, "wasted": self._wasted},
            "updates": {
                "aggregated": self._aggregated,
                "late": self._late,
                "lost": self._lost,
                "rejected": self._rejected,
            },
            "calls": {
                "sent": self._tasks + (self._uploads or self._downloads),
                "retried": self._retried,
                "failed": self._undelivered,
            },
            "digest": digest,
        }
