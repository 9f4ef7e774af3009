"""How a congestion window grows and shrinks: Reno's way and CUBIC's.

Both start slowly: a window grows by what was acknowledged, up to the slow-start threshold. Past it Reno (RFC 5681)
grows by one segment a round trip and halves on loss; CUBIC (RFC 9438) follows a cubic function of time, or what Reno
would have where that is more, and keeps 0.7 of it.
"""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from fedemu.types import Seconds

Control: TypeAlias = Literal["cubic", "reno"]


@dataclass(slots=True)
class Reno:
    """A window in segments."""

    window: float
    threshold: float = math.inf
    """Below it the window is in slow start."""
    beta: float = 0.5
    """Share of the window that a loss leaves."""

    def acknowledged(self, segments: int, took: Seconds) -> None:
        """Grow by segments that were sent and acknowledged within a round trip that took so long."""
        if self.window < self.threshold:
            # only while at least half of the window is in use (Linux's `tcp_is_cwnd_limited`)
            self.window = max(self.window, min(self.window + segments, 2 * segments, self.threshold))
        elif segments >= int(self.window):
            self._avoid(segments, took)

    def lost(self) -> None:
        """Shrink, once for all the losses of a round trip."""
        self.window = self.threshold = max(2.0, float(int(self.window * self.beta)))

    def timed_out(self) -> None:
        """Start again from one segment."""
        self.lost()
        self.window = 1.0

    def _avoid(self, segments: int, took: Seconds) -> None:
        self.window += segments / self.window


@dataclass(slots=True)
class Cubic(Reno):
    """RFC 9438, with fast convergence; its equations by number."""

    beta: float = 0.7
    peak: float = 0.0
    """W_max: the window that the function plateaus at."""
    floor: float = 0.0
    """W_est: the window that Reno would have."""
    age: Seconds | None = None
    """Time in congestion avoidance since the last loss; None before it begins."""
    start: float = 0.0
    """Window at age 0."""

    def lost(self) -> None:
        """Shrink, and remember from where."""
        converges = self.window < self.peak
        self.peak = self.window * (1 + self.beta) / 2 if converges else self.window
        self.age = None
        Reno.lost(self)

    def _avoid(self, segments: int, took: Seconds) -> None:
        if self.age is None:
            self.age, self.start, self.floor = 0.0, self.window, self.window
            self.peak = max(self.peak, self.window)
        self.age += took
        plateau = math.cbrt((self.peak - self.start) / 0.4)  # K, equation 2
        target = 0.4 * (self.age - plateau) ** 3 + self.peak  # equation 1
        self.window = max(self.window, self.floor, min(target, 1.5 * self.window))
        # the window follows in the next round trip: Linux counts acknowledgements until it may
        self.floor += 3 * (1 - self.beta) / (1 + self.beta) * segments / self.window  # equation 4


def response(control: Control, loss: float, rtt: Seconds) -> float:
    """Return the mean window at a share of lost segments above 0, in segments.

    Reno's is Mathis and others' (The macroscopic behavior of the TCP congestion avoidance algorithm, 1997), CUBIC's
    equation 5 of RFC 9438 (with C = 0.4), or Reno's where that is more.
    """
    reno = math.sqrt(1.5 / loss)
    return reno if control == "reno" else max(reno, 1.054 * math.pow(rtt / loss, 0.75))
