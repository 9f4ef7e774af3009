"""What the links of a group were like: how its transfers ended, how fast they were, and what held them up."""

from array import array
from collections import Counter
from typing import Any

import numpy as np

from fedemu.events import TransferEnded


class Transfers:
    """All transfers of a run, by group and direction: 32 bytes each, so that percentiles are exact."""

    def __init__(self) -> None:
        self._links: dict[tuple[str, str], _Link] = {}

    def follow(self, event: TransferEnded) -> None:
        """Take the end of a transfer."""
        self._links.setdefault((event.group, event.direction), _Link()).add(event)

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Return group -> direction -> figures."""
        groups: dict[str, dict[str, Any]] = {}
        for (group, direction), link in sorted(self._links.items()):
            groups.setdefault(group, {})[direction] = link.as_dict()
        return groups


class _Link:
    def __init__(self) -> None:
        self._outcomes: Counter[str] = Counter()
        self._bytes = self._retransmitted = 0
        self._seconds, self._rates, self._queued, self._delays = array("d"), array("d"), array("d"), array("d")

    def add(self, event: TransferEnded) -> None:
        self._outcomes[event.outcome] += 1
        self._bytes += event.bytes
        self._retransmitted += event.retransmitted
        if event.outcome not in ("delivered", "dropped"):
            return
        seconds = event.at - event.began
        self._seconds.append(seconds)
        self._queued.append(event.queued)
        if event.delay is not None:
            self._delays.append(event.delay)
        if seconds > 0:
            self._rates.append(8 * event.bytes / seconds)

    def as_dict(self) -> dict[str, Any]:
        return {
            "outcomes": dict(sorted(self._outcomes.items())),
            "bytes": self._bytes,
            "retransmitted": self._retransmitted,
            "seconds": spread(self._seconds),
            "throughput": spread(self._rates, digits=0),
            "queued": spread(self._queued),
            "delay": spread(self._delays),
        }


def spread(values: "array[float]", *, digits: int = 6) -> dict[str, float] | None:
    """Return mean, percentiles and maximum, rounded; None of nothing."""
    if not values:
        return None
    numbers = np.array(values)
    p50, p90, p99 = np.percentile(numbers, (50, 90, 99))
    found = {"mean": numbers.mean(), "p50": p50, "p90": p90, "p99": p99, "max": numbers.max()}
    return {name: round(float(value), digits) for name, value in found.items()}
