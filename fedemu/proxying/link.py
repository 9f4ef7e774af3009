"""The link of a proxy: the mapping that stands under `link` in a scenario, but for what has no meaning for bytes."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path as File
from typing import Any

from pydantic import ValidationError

from fedemu.errors import Fault, ScenarioError
from fedemu.keys import Loc, Wrong, worded
from fedemu.links._base import Way
from fedemu.links._trace import Trace
from fedemu.links.tcp.none import none
from fedemu.net.network import Pipe, Route
from fedemu.net.path import Path
from fedemu.rng import stream
from fedemu.scenario.link import DIRECTIONS, Direction, Link, with_preset
from fedemu.scenario.link import Way as WayKeys
from fedemu.scenario.source import Place, Source, anchored, first_comment, read
from fedemu.types import Seconds
from fedemu.wiring import bucket, periods, pipe, spells

_TCP = "the two ends have a real TCP, to which an emulated one would only be added; leave it out"
_REFUSED: Mapping[str, str] = {
    "drop": "a proxy sees bytes, not calls: to drop bytes of a TCP stream would only break it; write stall or reset",
    "retry": "a proxy sends nothing again, what stands behind it does; leave it out",
    "stage": "a proxy sees bytes, not messages; leave it out",
    "weight": "connections share a proxy's pipes alike; leave it out",
    "via": "a proxy has no shared pipes of other groups; write the rate here, and start it with --shared",
    "loss": f"packets that are lost cost a stream time, which a TCP model tells; {_TCP}",
    "tcp": _TCP,
}


@dataclass(frozen=True, slots=True)
class LinkFile:
    """A link as it was written, checked."""

    about: str
    """First comment line; empty where there is none."""
    folder: File
    """Where the files are that it names."""
    tree: Mapping[str, Any]
    """The mapping itself; it can go through YAML and JSON."""
    keys: Link
    traces: Mapping[Direction, Trace]
    """The directions whose rate was recorded."""

    def path(self, direction: Direction, connection: int, *, seed: int, since: Seconds) -> Path:
        """Build a direction of the link for a connection; nobody else has its stages.

        Args:
            direction: up is from the client.
            connection: Its number; 0 where all share one link.
            seed: Of the proxy.
            since: When the link was put in place: its schedule, outages and traces begin then.
        """
        keys, rtt = self.keys.way(direction), sum(self.keys.way(each).delay or 0.0 for each in DIRECTIONS)
        recorded = None
        if keys.trace is not None:
            trace, offset = self.traces[direction], keys.trace.offset
            if offset == "random":
                offset = float(stream(seed, "proxy", connection, direction, "trace").random()) * trace.duration
            recorded = Backlog(trace, offset, since)
        return Path(
            name=direction,
            periods=periods(self.keys, direction, lambda way, _: self._way(direction, way, rtt), since),
            route=Route([] if keys.rate is None else [direction], recorded),
            bucket=bucket(self.keys, direction, since),
            tcp=none,
            spells=spells(self.keys, partial(stream, seed, "proxy", connection), since),
        )

    def pipes(self, since: Seconds) -> Mapping[str, Pipe]:
        """Return the pipes that its paths cross."""
        found = {direction: pipe(self.keys, direction, since) for direction in DIRECTIONS}
        return {direction: own for direction, own in found.items() if own is not None}

    def _way(self, direction: Direction, keys: WayKeys, rtt: Seconds) -> Way:
        kinds = {"reset": keys.reset, "stall": self.keys.stall if direction == "up" else None}
        return Way(
            departure=tuple((name, kind.build()) for name, kind in kinds.items() if kind is not None),
            arrival=() if keys.held_up is None else (("delay", keys.held_up.build()),),
            rate=keys.rate or (self.traces[direction].rate if keys.trace is not None else math.inf),
            delay=keys.delay or 0.0,
            rtt=rtt,
        )


class Backlog:
    """A link whose rate was recorded, as bytes come to it piece by piece: what waits is served without a gap.

    An opportunity of the record that a piece has used in part is there for the next piece, if that was waiting.
    """

    def __init__(self, trace: Trace, offset: Seconds, since: Seconds) -> None:
        self._trace, self._offset, self._since = trace, offset, since
        self._begin: Seconds = since
        self._size = 0.0
        """Bytes since then, without a gap."""
        self._end = -math.inf

    def __call__(self, start: Seconds, size: float) -> Seconds:
        """Return when the last of so many bytes that are there at `start` has crossed."""
        if start > self._end:
            self._begin, self._size = start, 0.0
        self._size += size
        finish = self._trace.finish(self._begin - self._since, math.ceil(self._size), self._offset)
        self._end = max(start, self._since + finish)
        return self._end


def load(path: str | File) -> LinkFile:
    """Read a link file.

    Raises:
        ScenarioError: with every fault of the file.
    """
    file = str(path)
    try:
        text = File(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ScenarioError([Fault(file, 1, "link", f"cannot be read: {reason}")]) from error
    source, faults = read(text, file)
    if not source.tree and faults:
        raise ScenarioError(faults)
    return _checked(source, first_comment(text), File(path).parent, faults)


def parse(tree: Mapping[str, Any], like: LinkFile, file: str) -> LinkFile:
    """Return the link that a mapping describes.

    Args:
        tree: The mapping.
        like: The link in whose place it comes; files are looked for beside that one's.
        file: What faults are told of.

    Raises:
        ScenarioError: with every fault of the mapping.
    """
    return _checked(Source.at(Place(file, 1), tree), like.about, like.folder, [])


def merged(tree: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tree with the keys of a patch; null takes one away (RFC 7386)."""
    result = dict(tree)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            before = result.get(key)
            result[key] = merged(before if isinstance(before, Mapping) else {}, value)
        else:
            result[key] = value
    return result


def _checked(source: Source, about: str, folder: File, faults: list[Fault]) -> LinkFile:
    refused = list(_refused(source.tree, ()))
    link, wrong = _validated(anchored(_without(source.tree, {w.loc for w in refused}, ()), folder))
    above = {w.loc[:i] for w in refused for i in range(len(w.loc))}  # what is left there may be too little
    wrong = [w for w in wrong if not w.loc or w.loc not in above]
    faults = faults + [_fault(source, w) for w in (*refused, *wrong)]
    if faults or link is None:
        raise ScenarioError(sorted(dict.fromkeys(faults), key=lambda fault: fault.line))
    recorded = {direction: link.way(direction).trace for direction in DIRECTIONS}
    traces = {direction: keys.read() for direction, keys in recorded.items() if keys is not None}
    return LinkFile(about, folder, source.tree, link, traces)


def _refused(value: Any, loc: Loc) -> Iterator[Wrong]:
    """Yield the keys that a scenario's link may have and a proxy's cannot, wherever they stand."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        if key in _REFUSED and not (key == "tcp" and item in ("none", {"kind": "none"})):
            yield Wrong((*loc, key), _REFUSED[str(key)], "key")
        else:
            yield from _refused(item, (*loc, key))


def _without(value: Any, locs: set[Loc], loc: Loc) -> Any:
    if isinstance(value, Mapping):
        return {k: _without(item, locs, (*loc, k)) for k, item in value.items() if (*loc, k) not in locs}
    if isinstance(value, list):
        return [_without(item, locs, (*loc, i)) for i, item in enumerate(value)]
    return value


def _validated(tree: Mapping[str, Any]) -> tuple[Link | None, list[Wrong]]:
    try:
        return Link.model_validate(with_preset(tree)), []
    except ValidationError as error:
        return None, [worded(e, tree) for e in error.errors()]


def _fault(source: Source, wrong: Wrong) -> Fault:
    loc = wrong.loc if wrong.kind == "missing" else source.known(wrong.loc)
    return Fault(*source.place(wrong.loc), ".".join(map(str, loc)) or "link", wrong.text)
