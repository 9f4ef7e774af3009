"""G-NetTrack's logs: CSV with a row about every second, and its DL_bitrate and UL_bitrate in kbit/s.

So come the 5G logs of Raca, Leahy, Sreenan and Quinlan (Beyond Throughput, The Next Generation: A 5G Dataset with
Channel and Context Metrics, MMSys 2020). They are of downloads: their up column is mostly acknowledgements.
"""

import csv
import io
from datetime import UTC, datetime
from typing import Literal

from fedemu.links._trace import Trace
from fedemu.links.traces import _file
from fedemu.types import Seconds


def gnettrack(path: str, direction: Literal["up", "down"] = "down") -> Trace:
    """Read one direction's rates: the mean of a second's rows holds until the next second that has any.

    Args:
        path: The file, also in an archive.
        direction: down is DL_bitrate, up is UL_bitrate.

    Raises:
        ValueError: a column is missing, a row is no row of them or before the last one, or nothing can be sent.
    """
    column = "DL_bitrate" if direction == "down" else "UL_bitrate"
    rows = csv.DictReader(io.StringIO(_file.text(path)))
    if missing := {"Timestamp", column} - set(rows.fieldnames or ()):
        raise ValueError(f"{path}:1: no column {', '.join(sorted(missing))}; expected a G-NetTrack log")
    seconds: dict[datetime, list[float]] = {}
    for row in rows:
        at = _time(row["Timestamp"], path, rows.line_num)
        # phones write a row out of order now and then: a second back is tolerated, and counts to its own second
        if seconds and (back := (next(reversed(seconds)) - at).total_seconds()) > 1:
            raise ValueError(f"{path}:{rows.line_num}: {row['Timestamp']} is {back:g} s back; expected times in order")
        rate = _file.number(row[column], path, rows.line_num, f"a {column} in kbit/s")
        seconds.setdefault(at, []).append(rate * 1e3)
    times = sorted(seconds)
    ends = [*times[1:], None]
    steps: list[tuple[Seconds, float]] = [
        ((end - start).total_seconds() if end else 1.0, sum(seconds[start]) / len(seconds[start]))
        for start, end in zip(times, ends, strict=True)
    ]
    return _file.of_steps(steps, path)


def _time(stamp: str | None, path: str, line: int) -> datetime:
    try:
        return datetime.strptime(stamp or "", "%Y.%m.%d_%H.%M.%S").replace(tzinfo=UTC)
    except ValueError:
        raise ValueError(f"{path}:{line}: {stamp!r} is not a time; expected e.g. 2019.12.16_13.40.04") from None
