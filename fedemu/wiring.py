"""From a scenario's links to what a run is made of: the pipes that there are, and each client's path through them.

Directions are named from the node that they are written under: what a client sends goes through its own `up`, that of
the pipe that it goes via, and the server's `down`.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from fedemu.links._base import Stage, Way
from fedemu.links._bucket import Bucket
from fedemu.links._spells import Spells
from fedemu.links.delay import delay
from fedemu.net.network import Pipe, Route
from fedemu.net.path import Path
from fedemu.rng import stream
from fedemu.scenario import Scenario
from fedemu.scenario.kind import Kind
from fedemu.scenario.link import DIRECTIONS, Direction, Link
from fedemu.scenario.link import Way as WayKeys
from fedemu.scenario.shared import Shared
from fedemu.scenario.trace import TraceKeys
from fedemu.types import ClientId, Interval, Rng, Seconds

BIN = 0.1
"""Seconds over which a recorded rate is averaged where several transfers share it."""


def periods(
    link: Link, direction: Direction, way: Callable[[WayKeys, Seconds], Way], since: Seconds = 0.0
) -> Sequence[tuple[Seconds, Way]]:
    """Return what holds in one direction of a link from which time on.

    Args:
        link: Its keys.
        direction: Of them.
        way: Makes what holds from some time of the link on.
        since: When time 0 of the link is.
    """
    built: dict[int, Way] = {}  # what holds again is the same, with its memory
    result = []
    for at, keys in link.periods(direction):
        if id(keys) not in built:
            built[id(keys)] = way(keys, at)
        result.append((since + at, built[id(keys)]))
    return result


def pipe(link: Link, direction: Direction, since: Seconds = 0.0) -> Pipe | None:
    """Return the pipe of one direction of a link of constant rates; None if it has none.

    Args:
        link: Its keys.
        direction: Of them.
        since: When time 0 of the link is.
    """
    (_, first), *later = link.periods(direction)
    if first.rate is None:
        return None
    return Pipe(first.rate, [(since + at, way.rate) for at, way in later if way.rate is not None])


def bucket(link: Link, direction: Direction, since: Seconds = 0.0) -> Bucket | None:
    """Return the token bucket of one direction of a link; None if it has none. The arguments are those of `pipe`."""
    burst, own = link.way(direction).burst, pipe(link, direction, since)
    if burst is None or own is None:
        return None
    return Bucket(own.rate, burst, since=since, changes=tuple(own.changes))


def spells(link: Link, draw: Callable[..., Rng], since: Seconds = 0.0) -> Spells | None:
    """Return when a link is down, the same in both directions; None if it never is.

    Args:
        link: Its keys.
        draw: Makes the random stream of a name.
        since: When time 0 of the link is.
    """
    kinds: list[tuple[Iterable[Interval], bool]] = []
    if link.outage is not None:
        kinds.append((link.outage.build()(draw("outage")), link.outage.house["mode"] == "refuse"))
    for interval, cut in link.cuts:
        if draw("cut", round(interval.start * 1e9)).random() < cut.share:
            kinds.append(([interval], cut.mode == "refuse"))
    if not kinds:
        return None
    return Spells([((Interval(a + since, b + since) for a, b in intervals), refuses) for intervals, refuses in kinds])


class Wiring:
    """The links of a scenario.

    Args:
        scenario: Who there is, and behind what.
        clients: All of them.
        apart: Clients are processes of their own. A client then cannot know who else uses the pipes that it shares, so
            that what it sends crosses them where it arrives.
    """

    def __init__(self, scenario: Scenario, clients: Iterable[ClientId], *, apart: bool) -> None:
        self._scenario, self._server, self._apart = scenario, scenario.server.link, apart
        self.pipes = dict(self._shared_pipes())
        for client in clients:
            for direction in DIRECTIONS:
                own = pipe(self._link(client), direction)
                if own is not None:
                    self.pipes[f"{client} {direction}"] = own

    def path(self, client: ClientId, direction: Direction, *, kernel: bool = False) -> Path:
        """Return what stands between the two ends of a client's connection in one direction.

        Args:
            client: One of them.
            direction: Of its link.
            kernel: The client's kernel shapes its own link: all but what it shares with others.
        """
        link = self._link(client)
        if kernel:
            link = Link().model_copy(update={"via": link.via, "weight": link.weight})
        way = link.way(direction)
        own = [f"{client} {direction}"] if way.rate is not None else []
        shared = [] if self._apart and direction == "up" else self.crossed(client, direction)
        made = _Made()
        recorded = None
        if way.trace is not None:
            trace = way.trace.read()
            offset = self._offset(way.trace, trace.duration, client, direction)

            def recorded(start: Seconds, size: float) -> Seconds:
                return trace.finish(start, math.ceil(size), offset)

        return Path(
            name=f"{client} {direction}",
            periods=periods(link, direction, lambda keys, at: self._way(link, keys, client, direction, at, made)),
            tcp=link.model(direction).build,
            route=Route((*own, *shared), recorded, link.weight),
            bucket=bucket(link, direction),
            spells=spells(link, lambda *name: self._stream(*name, client)),
        )

    def crossed(self, client: ClientId, direction: Direction) -> Sequence[str]:
        """Return the pipes that a client's messages in that direction share with those of others."""
        names = [f"server {'down' if direction == 'up' else 'up'}"]
        if (via := self._link(client).via) is not None:
            names.insert(0, f"via {via} {direction}")
        return [name for name in names if name in self.pipes]

    # --- pipes

    def _shared_pipes(self) -> Iterator[tuple[str, Pipe]]:
        places = [("server", self._server), *((f"via {name}", pipe) for name, pipe in self._scenario.shared.items())]
        for place, shared in places:
            for direction in DIRECTIONS:
                pipe = self._shared_pipe(f"{place} {direction}", shared, direction)
                if pipe is not None:
                    yield f"{place} {direction}", pipe

    def _shared_pipe(self, name: str, shared: Shared, direction: Direction) -> Pipe | None:
        way = shared.way(direction)
        traffic = () if way.background is None else way.background.build()(self._stream("background", name))
        if way.trace is not None:
            trace = way.trace.read()
            return Pipe(trace.rate, trace.rates(BIN, self._offset(way.trace, trace.duration, name)), traffic)
        if way.rate is None:
            return None
        changes = []
        for phase in shared.schedule:
            rate = phase.rate_of(direction)
            if rate is not None:
                changes += [(phase.at, rate), (phase.at + phase.lasting, way.rate)]
        return Pipe(way.rate, changes, traffic)

    # --- paths

    def _way(
        self, link: Link, keys: WayKeys, client: ClientId, direction: Direction, at: Seconds, made: "_Made"
    ) -> Way:
        departure: list[tuple[str, Stage]] = []
        arrival: list[tuple[str, Stage]] = []
        if direction == "up" and link.stall is not None:
            departure.append(("stall", made.of(link.stall)))
        if keys.reset is not None:
            departure.append(("reset", made.of(keys.reset)))
        if keys.held_up is not None:
            arrival.append(("delay", made.of(keys.held_up)))
        if self._server.delay:
            arrival.append(("server delay", delay(delay=self._server.delay)))
        if keys.stage is not None:
            arrival.append(("stage", made.of(keys.stage)))
        if keys.drop is not None:
            arrival.append(("drop", made.of(keys.drop)))
        rates = [self.pipes[name].rate for name in self.crossed(client, direction)]
        if keys.rate is not None:
            rates.append(keys.rate)
        if keys.trace is not None:
            rates.append(keys.trace.read().rate)
        return Way(
            departure=tuple(departure),
            arrival=tuple(arrival),
            loss=None if keys.loss is None else made.of(keys.loss),
            rate=min(rates, default=float("inf")),
            delay=(keys.delay or 0.0) + self._server.delay,
            rtt=sum(self._delay(link, way, at) for way in DIRECTIONS),
        )

    def _delay(self, link: Link, direction: Direction, at: Seconds) -> Seconds:
        now = [period.way for period in link.periods(direction) if period.at <= at][-1]
        return (now.delay or 0.0) + self._server.delay

    def _offset(self, trace: TraceKeys, duration: Seconds, *name: str) -> Seconds:
        if trace.offset == "random":
            return float(self._stream("trace", *name).uniform(0, duration))
        return trace.offset

    def _link(self, client: ClientId) -> Link:
        return self._scenario.clients[client.partition("/")[0]].link

    def _stream(self, *name: str | int) -> Rng:
        return stream(self._scenario.seed, "link", *name)


class _Made:
    """What one direction of a link is made of: what is the same in two phases remembers from one to the other."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def of(self, kind: Kind) -> Any:
        """Return what the kind makes, always the same."""
        name = repr(kind)
        if name not in self._made:
            self._made[name] = kind.build()
        return self._made[name]
