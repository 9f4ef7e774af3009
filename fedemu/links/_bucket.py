"""A token bucket: what a rested link passes at once before its rate holds (tc-tbf)."""

from collections.abc import Sequence
from dataclasses import dataclass

from fedemu.types import Bytes, Seconds


@dataclass(slots=True)
class Bucket:
    """Tokens that come at `rate` and stay up to `burst`. Full at first; time never goes back."""

    rate: float
    """Bits per second."""
    burst: Bytes
    tokens: float = 0.0
    since: Seconds = 0.0
    """When there were so many tokens."""
    changes: Sequence[tuple[Seconds, float]] = ()
    """Later rates, in order of time."""

    def __post_init__(self) -> None:
        self.tokens = float(self.burst)

    def take(self, size: Bytes, now: Seconds) -> Bytes:
        """Let `size` bytes begin to pass; return how many of them have to wait for the rate, which takes all tokens."""
        tokens = min(float(self.burst), self.tokens + self._earned(now))
        at_once = min(size, int(tokens))
        self.tokens, self.since = tokens - at_once, now
        return size - at_once

    def _earned(self, now: Seconds) -> float:
        """Return the bytes that have come since the last count."""
        earned, at, rate = 0.0, self.since, self.rate
        for change, then in self.changes:
            if at < change <= now:
                earned += (change - at) * rate / 8
                at = change
            if change <= now:
                rate = then
        return earned + (now - at) * rate / 8

    def rest(self, now: Seconds) -> None:
        """Say that the bytes that had to wait have passed: tokens come anew from now on."""
        self.since = now
