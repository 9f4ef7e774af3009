"""What a link is made of: packets, stages, bursts, ways and retries.

A stage says what happens to a message alone (`packet -> later packet | None`). What flows share is in `_fluid`. Nothing
here reads a clock or waits: the same link serves both transports and both clocks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple, TypeAlias

from pydantic import Field

from fedemu.types import Bytes, Rng, Seconds
from fedemu.units import Duration

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


Stage: TypeAlias = Callable[[Packet, Callable[[], Rng]], Packet | None]
"""Return the packet later (never earlier), or None where it is lost.

The second argument makes the packet's random stream, always the same; a stage that draws nothing leaves it alone.
"""


class Burst(NamedTuple):
    """A part of a message that a sender puts on the path at once."""

    size: Bytes
    """Bytes on the wire."""
    turnaround: Seconds
    """The next burst starts when this one has been served, but not before this long after this one's start."""


Tcp: TypeAlias = Callable[[Bytes, float, Seconds], Sequence[Burst]]
"""Cut a message of that many bytes into bursts for an otherwise idle path of that rate (bit/s) and round-trip time."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how soon a sender tries again; the back-off is gRPC's (connection-backoff.md in grpc/grpc)."""

    attempts: Annotated[int, Field(ge=1)] = 5
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
    """One direction of a link. The name beside a stage keys its random stream."""

    departure: tuple[tuple[str, Stage], ...]
    """Stages before the pipe."""
    arrival: tuple[tuple[str, Stage], ...]
    """Stages after the pipe."""
    rate: float | None
    """Bits per second; None sets no limit, and then there is no TCP."""
    tcp: Tcp
    delay: Seconds
    """Mean one-way delay: the two ways' sum is the round-trip time that TCP sees."""
