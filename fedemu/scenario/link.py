"""The keys of a link in a scenario, and what holds in each of its directions at each time."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

from pydantic import BeforeValidator, Field

from fedemu.keys import Clash, Keys, Wrong, faulty, shown
from fedemu.links._base import Retry
from fedemu.links.delay import Distribution, Table
from fedemu.scenario.kind import Kind, KindOf
from fedemu.scenario.presets import preset
from fedemu.scenario.trace import TraceKeys, by_file
from fedemu.types import Interval, Seconds
from fedemu.units import Count, Duration, Rate, Ratio, Size

Direction: TypeAlias = Literal["up", "down"]
DIRECTIONS: tuple[Direction, Direction] = ("up", "down")
Mode: TypeAlias = Literal["blackhole", "refuse"]


class Conditions(Keys):
    """What holds in one direction of a link and may change meanwhile; None is as if the key were not there."""

    delay: Duration | None = None
    """Mean one-way delay; default 0ms."""
    jitter: Duration | None = None
    """Standard deviation of the delay; default 0ms."""
    correlation: Ratio | None = None
    """Of the delays of successive messages; default 0%."""
    distribution: Distribution | None = None
    """Law of the delay; default lognormal."""
    rate: Annotated[Rate, Field(gt=0)] | None = None
    """Bits per second; without it there is no limit and no TCP."""
    loss: Annotated[Kind, KindOf("links", only="loss", bare="random")] | None = None
    """Chance that a packet is lost, or {random, correlation}, {random, burst}, {gemodel}: on TCP it costs time."""
    drop: Annotated[Kind, KindOf("links", only="drop", bare="request")] | None = None
    """Chance that a call is lost, or {request, response}."""
    reset: Annotated[Kind, KindOf("links", only="reset", bare="probability")] | None = None
    """Chance that the connection is reset while it carries a task or an update."""

    @property
    def held_up(self) -> Kind | None:
        """The stage that delays packets, where a delay is set."""
        given = {key: getattr(self, key) for key in ("delay", "jitter", "correlation", "distribution")}
        given = {key: value for key, value in given.items() if value is not None}
        return Kind("links", "delay", {"delay": 0.0, **given}) if given else None


class Way(Conditions):
    """What holds in one direction of a client's link."""

    burst: Annotated[Size, Field(gt=0)] | None = None
    """Bytes that a rested link passes at once (token bucket); default none."""
    trace: Annotated[TraceKeys, BeforeValidator(by_file)] | None = None
    """A recorded rate instead of a constant one: FILE, or {file, offset, format}."""
    tcp: Annotated[Kind, KindOf("links.tcp", bare="kind", named="model")] | None = None
    """How a message becomes bursts where there is a rate; default slow-start, or rounds where there is loss."""
    stage: Annotated[Kind, KindOf("links")] | None = None
    """An impairment of your own, {kind: package.module:builder}: what it does to each message that has left."""

    @property
    def is_limited(self) -> bool:
        return self.rate is not None or self.trace is not None


class RetryKeys(Keys):
    """What a sender does about a message that nobody acknowledges."""

    attempts: Count = Retry().attempts
    """Tries in all."""
    timeout: Annotated[Duration, Field(gt=0)] = Retry().timeout
    """Time after which a try has failed."""
    backoff: Duration = Retry().backoff
    """Mean wait before the second try; each next wait is 1.6 times as long."""


def _retry(value: Any) -> Any:
    if value != "none" and not isinstance(value, dict | RetryKeys):
        raise ValueError(f"{shown(value)} is neither none nor a mapping; write e.g. {{attempts: 5, timeout: 10s}}")
    return None if value == "none" else value


class OutageKeys(Keys):
    """What the house reads beside an outage's own keys."""

    mode: Mode = "blackhole"
    """blackhole: who sends waits, and gives an attempt up after the retry timeout; refuse: it is told at once."""


class Cut(Keys):
    """Clients that are cut off from the server."""

    share: Ratio = 1.0
    """Share of the group's clients, drawn anew for each entry."""
    mode: Mode = "blackhole"
    """blackhole: who sends waits, and gives an attempt up after the retry timeout; refuse: it is told at once."""


class Entry(Keys):
    """Some time of a schedule."""

    at: Duration
    """When it begins."""
    lasting: Annotated[Duration, Field(gt=0)]
    """How long it lasts."""


def out_of_order(schedule: Sequence[Entry]) -> Iterator[Clash]:
    """Yield the entries of a schedule that begin before the one above them ends."""
    end = 0.0
    for place, entry in enumerate(schedule):
        if entry.at < end:
            text = f"begins at {entry.at:g}s, before the one above it ends at {end:g}s; write them in order of time"
            yield Clash(frozenset({"schedule", "up", "down"}), ("schedule", place, "at"), text)
        end = entry.at + entry.lasting


class Phase(Conditions, Entry):
    """What is different for some time; keys beside up and down hold for both directions."""

    up: Conditions = Conditions()
    """From client to server."""
    down: Conditions = Conditions()
    """From server to client."""
    cut: Cut | None = None
    """No connection meanwhile."""

    def of(self, direction: Direction) -> dict[str, Any]:
        """Return what is different in that direction."""
        own: Conditions = getattr(self, direction)
        return _given(self) | _given(own)


def _given(keys: Conditions) -> dict[str, Any]:
    return {key: getattr(keys, key) for key in Conditions.model_fields if key in keys.model_fields_set}


class Period(NamedTuple):
    """What holds in one direction from some time until the next period."""

    at: Seconds
    way: Way


class Link(Way):
    """A client's link: keys beside up and down hold for both directions, those in them override."""

    preset: str | None = None
    """A link by name; keys beside it override its own."""
    via: str | None = None
    """A shared pipe that all transfers cross too, by its name under shared."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Share of full pipes that a transfer gets, in proportion to those of others."""
    stall: Annotated[Kind, KindOf("links", only="stall")] | None = None
    """Once per round, the client's answer is late by chance."""
    outage: Annotated[Kind, KindOf("links", only="outage", house=OutageKeys)] | None = None
    """The link is down from time to time, in both directions."""
    schedule: list[Phase] = Field(default=[])
    """What is different at given times, in order of time."""
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

    def periods(self, direction: Direction) -> Sequence[Period]:
        """Return what holds in that direction from 0 on, as the schedule has it."""
        way = self.way(direction)
        usual = {key: getattr(way, key) for key in Way.model_fields}
        found = {0.0: way}
        for phase in self.schedule:
            found[phase.at] = Way.model_construct(**{**usual, **phase.of(direction)})
            found[phase.at + phase.lasting] = way
        return [Period(at, way) for at, way in found.items()]

    def model(self, direction: Direction) -> Kind:
        """Return the TCP model: a link without a rate has TCP only to lose packets of."""
        way = self.way(direction)
        loses = any(period.way.loss is not None for period in self.periods(direction))
        if way.tcp is not None and (way.is_limited or loses):
            return way.tcp
        return Kind("links.tcp", "rounds" if loses else "slow-start" if way.is_limited else "none")

    @property
    def cuts(self) -> Sequence[tuple[Interval, Cut]]:
        """When clients are cut off."""
        return [(Interval(p.at, p.at + p.lasting), p.cut) for p in self.schedule if p.cut is not None]

    @property
    def retries(self) -> Retry | None:
        """The same as the links know it."""
        return None if self.retry is None else Retry(**self.retry.model_dump())

    def clashes(self) -> Iterator[Clash]:
        """Yield delays that cannot be, keys without those that give them a meaning, and a schedule out of order."""
        for direction in DIRECTIONS:
            way, own = self.way(direction), getattr(self, direction).model_fields_set
            yield from _clashes(way, own, (direction,))
            parts = frozenset({"rate", "trace", "loss", "tcp", "burst", direction})

            def at(key: str, own: frozenset[str] | set[str] = own, direction: str = direction) -> tuple[str, ...]:
                return (direction, key) if key in own else (key,)

            if way.rate is not None and way.trace is not None:
                yield Clash(parts, at("trace"), "rate says it already; write one of the two")
            if way.burst is not None and way.rate is None:
                yield Clash(parts, at("burst"), "no meaning without rate; set rate or leave it out")
            if way.loss is not None and _overlooks_loss(way):
                yield Clash(parts, at("loss"), _NO_LOSS.format(way.tcp))
            if way.stage is not None and not callable(made := way.stage.build()):
                text = f"makes {shown(made)}, which is no stage; expected a function of (packet, draw)"
                yield Clash(frozenset({"stage", direction}), at("stage"), text)
            if "tcp" in own and not (way.is_limited or way.loss):
                yield Clash(parts, (direction, "tcp"), _NO_TCP)
        ways = [self.way(direction) for direction in DIRECTIONS]
        if self.tcp is not None and not any(way.is_limited or way.loss for way in ways):
            yield Clash(frozenset({"rate", "trace", "loss", "up", "down"}), ("tcp",), _NO_TCP)
        yield from self._phase_clashes()

    def _phase_clashes(self) -> Iterator[Clash]:
        usual, keys = {d: self.way(d) for d in DIRECTIONS}, frozenset({"schedule", "up", "down"})
        yield from out_of_order(self.schedule)
        for place, phase in enumerate(self.schedule):
            at = ("schedule", place)
            if phase.cut is None and not any(phase.of(direction) for direction in DIRECTIONS):
                yield Clash(keys, at, "nothing is different meanwhile; write e.g. up: {rate: 1Mbit/s}, or cut: {}")
            for direction in DIRECTIONS:
                changed = phase.of(direction)
                own = getattr(phase, direction).model_fields_set
                where = {key: (*at, direction, key) if key in own else (*at, key) for key in ("rate", "loss")}
                if "rate" in changed and usual[direction].rate is None:
                    text = "no meaning where the link itself has no constant rate; set rate there"
                    yield Clash(keys, where["rate"], text)
                if changed.get("loss") is not None and _overlooks_loss(usual[direction]):
                    yield Clash(keys | {"tcp"}, where["loss"], _NO_LOSS.format(usual[direction].tcp))
                way = Way.model_construct(**{key: getattr(usual[direction], key) for key in Way.model_fields} | changed)
                yield from _clashes(way, set(own), (*at, direction), keys)


def _clashes(way: Way, own: set[str], at: tuple[str | int, ...], keys: frozenset[str] = frozenset()) -> Iterator[Clash]:
    """Yield why a delay cannot be; `own` are the keys that stand at `at`, the others stand above it."""
    parts = keys | {"delay", "jitter", "correlation", "distribution", str(at[-1])}
    for key in ("distribution", "correlation"):
        if getattr(way, key) is not None and getattr(way, key) != "constant" and way.jitter is None:
            text = "no meaning without jitter; set jitter or leave it out"
            yield Clash(parts, (*at, key) if key in own else (*at[:-1], key), text)
            return
    if way.held_up is not None:
        try:
            way.held_up.build()
        except ValueError as error:
            cause = next((k for k in ("jitter", "distribution", "delay") if k in own), "jitter")
            if "correlation" in str(error):
                cause = "correlation"
            elif isinstance(way.distribution, Table) and str(error).startswith(way.distribution.table):
                cause = "distribution"
            yield Clash(parts, (*at, cause) if cause in own else (*at[:-1], cause), str(error))


def _overlooks_loss(way: Way) -> bool:
    return way.tcp is not None and not way.tcp.build().takes_loss


_NO_LOSS = "no meaning with tcp {0.kind}, which does not know packet loss; write tcp: rounds, or mean"
_NO_TCP = "no meaning without rate, as a link without rate has no TCP; set rate or leave it out"


def with_preset(value: Any) -> Any:
    """Return the mapping of a link with what its preset says beneath what it says itself."""
    if not isinstance(value, dict) or not isinstance(value.get("preset"), str):
        return value
    try:
        named = preset(value["preset"])
    except LookupError as error:
        raise faulty([Wrong(("preset",), str(error))]) from None
    result: dict[str, Any] = {**named, **value}
    for direction in DIRECTIONS:
        beneath, own = named.get(direction, {}), value.get(direction, {})
        if isinstance(own, dict):  # what an author says for both directions stands above what the preset says for one
            said = {"rate", "trace"} if value.keys() & {"rate", "trace"} or own.keys() & {"rate", "trace"} else set()
            said |= value.keys()
            result[direction] = {k: v for k, v in beneath.items() if k not in said} | own
    return result
