"""The keys of pipes that several clients share, the server's link among them."""

from collections.abc import Iterator
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field

from fedemu.keys import Clash, Keys
from fedemu.scenario.kind import Kind, KindOf
from fedemu.scenario.link import DIRECTIONS, Direction, Entry, out_of_order
from fedemu.scenario.trace import TraceKeys, by_file
from fedemu.units import Duration, Rate


class SharedWay(Keys):
    """One direction of a pipe that several clients share."""

    not_built: ClassVar[frozenset[str]] = frozenset({"delay", "jitter", "loss", "drop", "tcp", "burst"})
    rate: Annotated[Rate, Field(gt=0)] | None = None
    """Bits per second, shared by all transfers in flight; without it there is no limit."""
    trace: Annotated[TraceKeys, BeforeValidator(by_file)] | None = None
    """A recorded rate instead of a constant one."""
    background: Annotated[Kind, KindOf("links.traffic")] | None = None
    """Other traffic, which competes with the run's own."""


class SharedPhaseWay(Keys):
    """The rate of one direction for some time."""

    rate: Rate
    """Bits per second meanwhile; 0 lets nothing through."""


class SharedPhase(Entry):
    """What is different for some time in a pipe that several clients share."""

    rate: Rate | None = None
    """Bits per second meanwhile; 0 lets nothing through."""
    up: SharedPhaseWay | None = None
    """Away from the node that it is written under."""
    down: SharedPhaseWay | None = None
    """Towards it."""

    def rate_of(self, direction: Direction) -> float | None:
        own: SharedPhaseWay | None = getattr(self, direction)
        return self.rate if own is None else own.rate


class Shared(SharedWay):
    """A pipe that several groups share."""

    up: SharedWay = SharedWay()
    """From clients to server."""
    down: SharedWay = SharedWay()
    """From server to clients."""
    schedule: list[SharedPhase] = Field(default=[])
    """Rates at given times, in order of time."""

    def way(self, direction: Direction) -> SharedWay:
        """Return what holds in that direction, both levels taken together."""
        own: SharedWay = getattr(self, direction)
        return SharedWay.model_construct(
            **{key: getattr(own if key in own.model_fields_set else self, key) for key in SharedWay.model_fields}
        )

    def clashes(self) -> Iterator[Clash]:
        """Yield rates said twice, traffic without a pipe, and a schedule out of order."""
        for direction in DIRECTIONS:
            way, own = self.way(direction), getattr(self, direction).model_fields_set
            parts = frozenset({"rate", "trace", "background", direction})
            if way.rate is not None and way.trace is not None:
                at = (direction, "trace") if "trace" in own else ("trace",)
                yield Clash(parts, at, "rate says it already; write one of the two")
            if way.background is not None and way.rate is None and way.trace is None:
                at = (direction, "background") if "background" in own else ("background",)
                yield Clash(parts, at, "no meaning without rate, as there is no pipe to share; set rate")
        yield from out_of_order(self.schedule)
        for place, phase in enumerate(self.schedule):
            keys = frozenset({"schedule", "rate", "up", "down"})
            changed = [d for d in DIRECTIONS if phase.rate_of(d) is not None]
            if not changed:
                yield Clash(keys, ("schedule", place), "nothing is different meanwhile; write e.g. rate: 1Mbit/s")
            missing = [direction for direction in changed if self.way(direction).rate is None]
            if missing:
                text = "no meaning where the pipe itself has no constant rate; set rate there"
                yield Clash(keys, ("schedule", place), text)


class ServerLink(Shared):
    """The link that all clients share at the server's end; up is from server to clients."""

    not_built: ClassVar[frozenset[str]] = SharedWay.not_built - {"delay"} | {
        "stall",
        "retry",
        "via",
        "preset",
        "outage",
    }
    delay: Duration = 0.0
    """One-way delay, added to the client's."""
