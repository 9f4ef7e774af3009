"""Clients that were online when a file says so.

The file is CSV with the columns client, start and end: a line for each time that a client was online, in seconds from
the start of the record, in order for each client.
"""

import csv
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from fedemu.availabilities._base import Availability, Member
from fedemu.availabilities._process import FOREVER, merged
from fedemu.types import ClientId, Interval, Rng, Seconds
from fedemu.units import Duration, File


def trace(
    *,
    file: File,
    offset: Literal["random", "none"] = "random",
    period: Annotated[Duration, Field(gt=0)] | None = None,
) -> Availability:
    """Replay a record of clients, again and again; the first member takes its first client, and so on around.

    Args:
        file: CSV with a header client,start,end, in seconds.
        offset: Where in the record a client begins: at a moment that it draws, or where the record does.
        period: Length of the record; default its last end.

    Raises:
        ValueError: the file cannot be read, has no line or one that is out of order, or is longer than `period`.
    """
    clients = list(_read(file).values())
    last = max(intervals[-1].end for intervals in clients)
    if period is not None and period < last:
        raise ValueError(f"{file} lasts until {last:g}s, after period {period:g}s; expected it by then")
    length = last if period is None else period

    def availability(members: Sequence[Member], draw: Callable[[ClientId], Rng]) -> Sequence[Iterator[Interval]]:
        return [
            _replayed(
                clients[place % len(clients)], length, length * draw(m.client).random() if offset == "random" else 0.0
            )
            for place, m in enumerate(members)
        ]

    return availability


def _replayed(intervals: Sequence[Interval], length: Seconds, offset: Seconds) -> Iterator[Interval]:
    if len(intervals) == 1 and intervals[0].end - intervals[0].start == length:
        return iter((FOREVER,))

    def again() -> Iterator[Interval]:
        time = 0
        while True:
            begins, ends = time * length, (time + 1) * length
            for start, end in intervals:
                # the same float for the record's end and its next start, or they would not touch
                yield Interval(begins + start - offset, (ends if end == length else begins + end) - offset)
            time += 1

    return merged(again())


def _read(file: str) -> Mapping[str, Sequence[Interval]]:
    try:
        rows = csv.DictReader(io.StringIO(Path(file).read_text("utf-8", "replace")))
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from None
    if missing := [column for column in ("client", "start", "end") if column not in (rows.fieldnames or ())]:
        raise ValueError(f"{file}:1: no column {', '.join(missing)}; expected client,start,end")
    clients: dict[str, list[Interval]] = {}
    for row in rows:
        where = f"{file}:{rows.line_num}"
        start, end = _seconds(row["start"], where), _seconds(row["end"], where)
        intervals = clients.setdefault(row["client"], [])
        if end <= start:
            raise ValueError(f"{where}: end {end:g} is not after start {start:g}")
        if intervals and start < intervals[-1].end:
            raise ValueError(f"{where}: start {start:g} is before {row['client']}'s last end {intervals[-1].end:g}")
        if intervals and start == intervals[-1].end:
            start = intervals.pop().start
        intervals.append(Interval(start, end))
    if not clients:
        raise ValueError(f"{file} has no line below its header; expected one at least")
    return clients


def _seconds(word: str | None, where: str) -> Seconds:
    try:
        value = float(word or "")
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ValueError(f"{where}: {word!r} is not a time in seconds")
    return value
