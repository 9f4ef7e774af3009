"""Who watches a run sees how it stands, on a terminal and in a log file."""

import io

from rich.console import Console as Screen

from fedemu.events import (
    ClientJoined,
    DelayMeasured,
    Evaluated,
    Event,
    RoundClosed,
    RoundStarted,
    RunFinished,
    RunStarted,
)
from fedemu.observers.console import Console


def closed(round: int, *, late: int = 0) -> RoundClosed:
    return RoundClosed(at=40.0 * round, round=round, aggregated=4, late=late, lost=0, duration=40.0)


START = RunStarted(at=0.0, name="flaky [uplink]", seed=1, version="0.1.0", clients=20, parameters=62_006)
EVENTS: tuple[Event, ...] = (
    START,
    ClientJoined(at=0.0, client="phones/0", group="phones"),
    closed(1, late=1),
    Evaluated(at=40.0, round=1, accuracy=0.25, loss=2.0),
    RoundStarted(at=40.0, round=2, cohort=()),
    closed(2),
    RoundStarted(at=80.0, round=3, cohort=()),
    closed(3, late=1),
    Evaluated(at=120.0, round=3, accuracy=0.4, loss=2.0),
    RunFinished(at=120.0, reason="rounds", time=120.0),
)


def watch(events: tuple[Event, ...], *, seconds: float, terminal: bool = False) -> str:
    """Return what is written when each event comes that many real seconds after the one before it."""
    file, now = io.StringIO(), 0.0
    screen = Screen(file=file, width=120, force_terminal=terminal, get_time=lambda: now)
    with Console(rounds=3, target=0.6, screen=screen) as console:
        for event in events:
            now += seconds
            console(event)
    return file.getvalue()


def test_a_log_file_gets_one_line_a_round() -> None:
    """A round's line waits for its accuracy; the second round was not evaluated and keeps the first's."""
    assert watch(EVENTS, seconds=1.0).splitlines() == [
        "flaky [uplink]: seed 1, 20 clients, 62,006 parameters",
        "round 1/3, accuracy 25.0% of 60.0%, 40.0s emulated, 1 straggler",
        "round 2/3, accuracy 25.0% of 60.0%, 80.0s emulated, 1 straggler",
        "round 3/3, accuracy 40.0% of 60.0%, 2min 00s emulated, 2 stragglers",
    ]


def test_a_measurement_does_not_cut_a_round_off_from_its_accuracy() -> None:
    """Messages arrive while the model is evaluated: 25 % is round 1's all the same."""
    measured = DelayMeasured(at=40.0, group="phones", direction="up", requested=0.04, achieved=0.0403)
    lines = watch((START, closed(1), measured, EVENTS[3], EVENTS[4]), seconds=1.0).splitlines()
    assert lines[1:] == ["round 1/3, accuracy 25.0% of 60.0%, 40.0s emulated"]


def test_a_log_file_gets_at_most_a_line_a_second_and_always_the_last() -> None:
    """100 rounds in 0.8 s of real time: the first, and the last."""
    rounds = tuple(e for i in range(1, 101) for e in (closed(i), RoundStarted(at=40.0 * i, round=i + 1, cohort=())))
    lines = watch((START, *rounds[:-1], EVENTS[-1]), seconds=0.004).splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == ["round 1/3", "round 100/3"]


def test_a_terminal_shows_a_bar_with_the_last_facts() -> None:
    """The bar's last state has the run's name, unmarked, and the facts of round 3."""
    shown = watch(EVENTS, seconds=1.0, terminal=True)
    assert "flaky [uplink]" in shown
    assert "3/3, 40.0% of 60.0%, 2min 00s emulated, 2 stragglers" in shown
    assert "━" in shown
