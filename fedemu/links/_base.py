"""What a link is made of: packets, stages, losses, bursts, outages, traffic, ways and retries.

A stage says what happens to a message alone (`packet -> later packet | None`). What flows share is in `_fluid`. Nothing
here reads a clock or waits: the same link serves all transports, both clocks and the proxy.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple, Protocol, TypeAlias

from pydantic import Field

from fedemu.types import Bytes, Interval, Rng, Seconds
from fedemu.units import Count, Duration

Role: TypeAlias = Literal["request", "response", "control"]
"""A request is a task or an update, a response its acknowledgement, control all the rest (hello, cancel)."""


class Packet(NamedTuple):
    """One message on its way in one direction."""

    size: Bytes
    at: Seconds
    """Where it is in time: when it left, plus all that held it up so far."""
    role: Role = "control"
    attempt: int = 1
    """1 for the first try."""
    cut: float | None = None
    """Share of its bytes, 0..1, after which the connection is reset; None leaves it whole."""


Stage: TypeAlias = Callable[[Packet, Callable[[], Rng]], Packet | None]
"""Return the packet later (never earlier), or None where it is lost.

The second argument makes the packet's random stream, always the same; a stage that draws nothing leaves it alone.
"""


class Loss(Protocol):
    """What packets one direction of a link loses; it remembers the state that the last packet left it in."""

    @property
    def mean(self) -> float:
        """Share of packets lost in the long run, 0..1."""
        ...

    def __call__(self, count: int, at: Seconds, rng: Rng, /) -> int:
        """Return how many are lost of that many packets, which are sent next and at that time."""
        ...


class Burst(NamedTuple):
    """A part of a message that a sender puts on the path at once."""

    size: Bytes
    """Bytes on the wire; 0 only waits."""
    turnaround: Seconds
    """The next burst starts when this one has been served, but not before this long after this one's start."""
    lost: int = 0
    """Segments of it that were lost, and are in a later burst again."""


class Sending(NamedTuple):
    """A message that one direction of a connection is about to send."""

    size: Bytes
    at: Seconds
    rate: float
    """Of the narrowest pipe on an idle path, bits per second; inf where nothing limits it."""
    rtt: Seconds
    """Mean delay there and back."""
    idle: Seconds = math.inf
    """Since the last message of this direction of the connection left; inf for the first."""
    lost: Callable[[int, Seconds], int] | None = None
    """How many of the next so many segments, sent at that time, the link loses; None loses none."""
    loss: float = 0.0
    """Share of segments that the link loses in the long run: `Loss.mean`."""


class Tcp(NamedTuple):
    """A model of one direction of one connection; it may remember its window from message to message."""

    bursts: Callable[[Sending, Callable[[], Rng]], Sequence[Burst]]
    """Cut a message into bursts. The second argument makes its random stream, as a stage's."""
    takes_loss: bool = False
    """It knows what packet loss does to it; one that does not cannot stand beside `loss`."""


class Demand(NamedTuple):
    """What background traffic asks of a pipe, from some time on."""

    at: Seconds
    flow: int
    """Which of the traffic's flows; a number that was not there before is a new flow."""
    cap: float
    """Bits per second that it takes at most; 0 ends it, inf takes what it gets."""
    size: float = math.inf
    """Bytes after which it ends; only a new flow's counts."""


Traffic: TypeAlias = Callable[[Rng], Iterator[Demand]]
"""Yield what flows beside the run's own in a pipe, in order of time, for ever or to its end."""

Outage: TypeAlias = Callable[[Rng], Iterator[Interval]]
"""Yield when a link is down: disjoint intervals in order of time, for ever or to the last."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how soon a sender tries again; the back-off is gRPC's (connection-backoff.md in grpc/grpc)."""

    attempts: Count = 5
    """Tries in all."""
    timeout: Annotated[Duration, Field(gt=0)] = 10.0
    """Seconds without an acknowledgement after which a try has failed."""
    backoff: Duration = 1.0
    """Mean seconds between the first failure and the second try; each next wait is 1.6 times as long."""

    def wait(self, attempt: int, rng: Rng) -> Seconds:
        """Return how long to wait after that attempt (1 for the first) has failed.

        The mean is `backoff` times 1.6 for each failure before this one, at most 120 s; the draw is within 20 % of it.
        """
        return min(120.0, self.backoff * 1.6 ** (attempt - 1)) * float(rng.uniform(0.8, 1.2))


class Way(NamedTuple):
    """What holds in one direction of a link for some time. The name beside a stage keys its random stream."""

    departure: tuple[tuple[str, Stage], ...] = ()
    """Stages before the pipe."""
    arrival: tuple[tuple[str, Stage], ...] = ()
    """Stages after the pipe."""
    loss: Loss | None = None
    """Loses packets, which costs TCP time."""
    rate: float = math.inf
    """Of the narrowest pipe, bits per second."""
    delay: Seconds = 0.0
    """Mean one-way delay."""
    rtt: Seconds = 0.0
    """Mean delay there and back, as TCP sees it."""
