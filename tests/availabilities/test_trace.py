"""A record of clients is replayed as it is written."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from fedemu.availabilities._base import Availability, Member
from fedemu.availabilities.trace import trace
from fedemu.types import Interval, Rng

RECORD = "client,start,end\nx,0,10\ny,5,7\nx,30,50\ny,7,9\n"


def written(folder: Path, text: str) -> str:
    path = folder / "record.csv"
    path.write_text(text)
    return str(path)


def draw(client: str) -> Rng:
    return np.random.default_rng([5, *client.encode()])


def first(availability: Availability, members: int, count: int) -> list[list[tuple[float, float]]]:
    made = availability([Member(f"a/{slot}", (1,)) for slot in range(members)], draw)
    return [list(itertools.islice(intervals, count)) for intervals in made]


def test_members_take_the_record_s_clients_in_turn(tmp_path: Path) -> None:
    """Three members, two clients; 50 s later again: x's end and its next start touch and are one, as are y's two."""
    x = [(0, 10), (30, 60), (80, 110)]
    y = [(5, 9), (55, 59), (105, 109)]
    assert first(trace(file=written(tmp_path, RECORD), offset="none"), 3, 3) == [x, y, x]


def test_a_record_may_be_longer_than_its_last_end(tmp_path: Path) -> None:
    """60 s: nobody is online in the last ten."""
    x = [(0, 10), (30, 50), (60, 70)]
    assert first(trace(file=written(tmp_path, RECORD), offset="none", period=60.0), 1, 3) == [x]
    with pytest.raises(ValueError, match=r"lasts until 50s, after period 40s"):
        trace(file=written(tmp_path, RECORD), period=40.0)


def test_offsets_are_uniform_over_the_record(tmp_path: Path) -> None:
    """One client online 0 to 10 of 50 s: a fifth of 2,000 is online at 0, and starts are uniform (KS)."""
    intervals = first(trace(file=written(tmp_path, "client,start,end\nx,0,10\n"), period=50.0), 2000, 2)
    starts = np.array([runs[0][0] % 50 for runs in intervals])
    assert stats.kstest(starts, stats.uniform(0, 50).cdf).pvalue > 1e-4
    assert sum(runs[0][0] <= 0 for runs in intervals) == pytest.approx(400, abs=4 * (2000 * 0.2 * 0.8) ** 0.5)


def test_who_is_online_in_all_of_the_record_is_online_for_ever(tmp_path: Path) -> None:
    """In one line or in several that touch."""
    file = written(tmp_path, "client,start,end\nx,0,10\nx,10,50\ny,0,50\n")
    assert first(trace(file=file), 2, 5) == [[Interval(0.0, float("inf"))]] * 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "FILE:1: no column client, start, end; expected client,start,end"),
        ("client,start\nx,1\n", "FILE:1: no column end"),
        ("client,start,end\n", "FILE has no line below its header"),
        (RECORD + "x,60,a\n", "FILE:6: 'a' is not a time in seconds"),
        (RECORD + "x,60\n", "FILE:6: None is not a time in seconds"),
        (RECORD + "x,-1,5\n", "FILE:6: '-1' is not a time in seconds"),
        (RECORD + "x,60,60\n", "FILE:6: end 60 is not after start 60"),
        (RECORD + "x,49,60\n", "FILE:6: start 49 is before x's last end 50"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, text: str, message: str) -> None:
    """File and line, what was found and what was expected."""
    path = written(tmp_path, text)
    with pytest.raises(ValueError, match="^" + re.escape(message.replace("FILE", path))):
        trace(file=path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A scenario's fault, as every other."""
    with pytest.raises(ValueError, match="gone cannot be read: No such file"):
        trace(file=str(tmp_path / "gone"))
