"""A traced device takes the times of its file."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from fedemu.devices._base import Device, Work
from fedemu.devices.trace import trace

WORK = Work(10, 2, lambda: 1e6)


def written(folder: Path, text: str) -> str:
    path = folder / "times.txt"
    path.write_text(text)
    return str(path)


def trained(device: Device, count: int, seed: int = 1) -> list[float]:
    """The house gives a device that is drawn once a client the same stream every time."""
    return [device.training_time(WORK, np.random.default_rng(seed)) for _ in range(count)]


def test_trainings_take_the_lines_in_order_and_begin_again(tmp_path: Path) -> None:
    """10 examples, 2 epochs: 20 times the line's duration; comments and empty lines are none."""
    device = trace(file=written(tmp_path, "# a phone\n5ms\n\n10ms\n1s\n"), offset="none")
    assert trained(device, 5) == pytest.approx([0.1, 0.2, 20.0, 0.1, 0.2])


def test_an_offset_is_drawn_once_a_client(tmp_path: Path) -> None:
    """A rotation of the lines, each as likely as any other: chi-square of 3,000 clients, alpha = 1e-4."""
    file = written(tmp_path, "1s\n2s\n3s\n")
    rotations = {(20.0, 40.0, 60.0, 20.0), (40.0, 60.0, 20.0, 40.0), (60.0, 20.0, 40.0, 60.0)}
    found = Counter(tuple(trained(trace(file=file), 4, seed)) for seed in range(3000))
    assert set(found) == rotations
    assert stats.chisquare(list(found.values())).pvalue > 1e-4


def test_two_clients_do_not_share_a_place_in_the_file(tmp_path: Path) -> None:
    """Each client's device is built for it alone."""
    file = written(tmp_path, "1s\n2s\n")
    one, other = trace(file=file, offset="none"), trace(file=file, offset="none")
    assert trained(one, 1) == trained(other, 1) == [20.0]


def test_the_house_is_told_to_give_a_client_s_stream(tmp_path: Path) -> None:
    """With a new one each round, the offset would be another each round."""
    assert trace(file=written(tmp_path, "1s\n")).draw == "client"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5ms\n10\n", "FILE:2: '10' is not a duration; write e.g. 5ms"),
        ("5ms\n-1ms\n", "FILE:2: '-1ms' is not a duration"),
        ("# nothing\n", "FILE has no duration"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, text: str, message: str) -> None:
    """File and line; and a file without a time is a fault too."""
    path = written(tmp_path, text)
    with pytest.raises(ValueError, match="^" + re.escape(message.replace("FILE", path))):
        trace(file=path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A scenario's fault, as every other."""
    with pytest.raises(ValueError, match="gone cannot be read: No such file"):
        trace(file=str(tmp_path / "gone"))
