"""The keys of a link in a scenario, and what holds in each of its directions."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BeforeValidator, Field

from fedemu.keys import Clash, Keys, shown
from fedemu.links._base import Retry
from fedemu.scenario.kind import Kind, KindOf
from fedemu.units import Duration, Rate

Direction: TypeAlias = Literal["up", "down"]
DIRECTIONS: tuple[Direction, Direction] = ("up", "down")
_LATER = frozenset(
    {"kind", "preset", "via", "loss", "correlation", "reset", "outage", "schedule", "burst", "trace", "limit"}
)


class Way(Keys):
    """What holds in one direction of a client's link; None is as if the key were not there."""

    not_built: ClassVar[frozenset[str]] = _LATER
    delay: Duration | None = None
    """Mean one-way delay; default 0ms."""
    jitter: Duration | None = None
    """Standard deviation of the delay; default 0ms."""
    distribution: Literal["normal", "uniform", "lognormal"] | None = None
    """Law of the delay; default lognormal."""
    rate: Annotated[Rate, Field(gt=0)] | None = None
    """Bits per second; without it there is no limit and no TCP."""
    drop: Annotated[Kind, KindOf("links", only="drop", bare="request")] | None = None
    """Chance that a call is lost, or {request, response}."""
    tcp: Annotated[Kind, KindOf("links.tcp", bare="kind")] | None = None
    """How a message becomes bursts where there is a rate: none, or slow-start (default)."""

    @property
    def held_up(self) -> Kind | None:
        """The stage that delays packets, where a delay is set."""
        given = {key: getattr(self, key) for key in ("delay", "jitter", "distribution")}
        given = {key: value for key, value in given.items() if value is not None}
        return Kind("links", "delay", {"delay": 0.0, **given}) if given else None


class RetryKeys(Keys):
    """What a sender does about a message that nobody acknowledges."""

    attempts: Annotated[int, Field(ge=1)] = Retry().attempts
    """Tries in all."""
    timeout: Annotated[Duration, Field(gt=0)] = Retry().timeout
    """Time after which a try has failed."""
    backoff: Duration = Retry().backoff
    """Mean wait before the second try; each next wait is 1.6 times as long."""


def _retry(value: Any) -> Any:
    if value != "none" and not isinstance(value, dict | RetryKeys):
        raise ValueError(f"{shown(value)} is neither none nor a mapping; write e.g. {{attempts: 5, timeout: 10s}}")
    return None if value == "none" else value


class Link(Way):
    """A client's link: keys beside up and down hold for both directions, those in them override."""

    stall: Annotated[Kind, KindOf("links", only="stall")] | None = None
    """Once per round, the client's answer is late by chance."""
    retry: Annotated[RetryKeys | None, BeforeValidator(_retry, json_schema_input_type=Literal["none"] | RetryKeys)] = (
        RetryKeys()
    )
    """What the sender of a lost message does; none is one attempt."""
    up: Way = Way()
    """From client to server."""
    down: Way = Way()
    """From server to client."""

    def way(self, direction: Direction) -> Way:
        """Return what holds in that direction, both levels taken together."""
        own: Way = getattr(self, direction)
        return Way.model_construct(
            **{key: getattr(own if key in own.model_fields_set else self, key) for key in Way.model_fields}
        )

    @property
    def retries(self) -> Retry | None:
        """The same as the links know it."""
        return None if self.retry is None else Retry(**self.retry.model_dump())

    def clashes(self) -> Iterator[Clash]:
        """Yield delays that cannot be, and keys without those that give them a meaning."""
        for direction in DIRECTIONS:
            way, own = self.way(direction), getattr(self, direction).model_fields_set
            parts = frozenset({"delay", "jitter", "distribution", direction})
            if way.distribution is not None and way.jitter is None:
                at = (direction, "distribution") if "distribution" in own else ("distribution",)
                yield Clash(parts, at, "no meaning without jitter; set jitter or leave it out")
            elif way.held_up is not None:
                at = next(((direction, k) for k in ("jitter", "distribution", "delay") if k in own), ("jitter",))
                try:
                    way.held_up.build()
                except ValueError as error:
                    yield Clash(parts, at, str(error))
            if "tcp" in own and way.rate is None:
                yield Clash(frozenset({"rate", direction}), (direction, "tcp"), _NO_TCP)
        if self.tcp is not None and not any(self.way(direction).rate for direction in DIRECTIONS):
            yield Clash(frozenset({"rate", "up", "down"}), ("tcp",), _NO_TCP)


_NO_TCP = "no meaning without rate, as a link without rate has no TCP; set rate or leave it out"


class ServerWay(Keys):
    """One direction of the server's link."""

    not_built: ClassVar[frozenset[str]] = _LATER | {"delay", "jitter", "distribution", "drop", "tcp"}
    rate: Annotated[Rate, Field(gt=0)] | None = None
    """Bits per second, shared by all transfers in flight; without it there is no limit."""


class ServerLink(ServerWay):
    """The link that all clients share at the server's end."""

    not_built: ClassVar[frozenset[str]] = _LATER | {"jitter", "distribution", "drop", "tcp", "stall", "retry"}
    delay: Duration = 0.0
    """One-way delay, added to the client's."""
    up: ServerWay = ServerWay()
    """From server to clients."""
    down: ServerWay = ServerWay()
    """From clients to server."""

    def rate_of(self, direction: Direction) -> float | None:
        """Return the bits per second in that direction, as seen from the server; None sets no limit."""
        own: ServerWay = getattr(self, direction)
        return own.rate if own.rate is not None else self.rate
