"""One scenario on both clocks: the comparison by hand, and a small run for real."""

import json
from contextlib import nullcontext
from pathlib import Path

import pytest

from fedemu.events import (
    Event,
    RoundClosed,
    RoundFailed,
    RoundStarted,
    TaskReceived,
    TaskSent,
    TrainingFinished,
    UpdateReceived,
)
from fedemu.scenario import load
from fedemu.verify import as_text, compare, verify

SCENARIO = """\
# How true is a second of emulated time?
dataset: {kind: digits}
partition: {kind: iid}
model: {kind: softmax}
training: {batch_size: 64, lr: 0.1}
strategy: {kind: fedavg}
clients:
  phones:
    count: 2
    device: {kind: constant, per_example: 0.2ms}
    link: {delay: 40ms, jitter: 10ms, up: {rate: 1Mbit/s}}
stop: {rounds: 4}
compute: {kind: inline}
"""


def a_round(
    number: int,
    at: float,
    *,
    download: float = 0.1,
    compute: float = 0.5,
    upload: float = 0.2,
    wait: float = 0.0,
    late: int = 0,
    client: str = "a/0",
) -> list[Event]:
    """Return the events of a round of one client, whose phases take that long, one after the other."""
    about = {"client": client, "group": client[0], "round": number, "attempt": 1}
    received, trained = at + download, at + download + compute
    arrived, closed = trained + upload, trained + upload + wait
    return [
        RoundStarted(at=at, round=number, cohort=(client,)),
        TaskSent(at=at, **about, bytes=10, version=number - 1),
        TaskReceived(at=received, **about, bytes=10, version=number - 1),
        TrainingFinished(at=trained, **about, steps=1, loss=0.5, duration=compute),
        UpdateReceived(at=arrived, **about, bytes=10, staleness=0),
        RoundClosed(at=closed, round=number, aggregated=1, late=late, lost=0, duration=closed - at),
    ]


def test_rounds_are_compared_by_their_durations() -> None:
    """1 s emulated and 1.1 s measured are 10 % too long; 2 s and 1.9 s are 5 % too short."""
    virtual = [*a_round(1, 0.0, compute=0.7), *a_round(2, 1.0, compute=1.7)]
    real = [*a_round(1, 0.0, compute=0.8), *a_round(2, 1.2, compute=1.6)]
    rows = compare(virtual, real).rounds
    assert [(row.round, row.note) for row in rows] == [(1, ""), (2, "")]
    assert [row.emulated for row in rows] == pytest.approx([1.0, 2.0])
    assert [row.measured for row in rows] == pytest.approx([1.1, 1.9])
    assert [row.error for row in rows] == pytest.approx([0.1, -0.05])


def test_phases_are_compared_for_each_client_and_round() -> None:
    """Two clients' computing is 0.1 s and 0.3 s too long: 0.2 s in the mean, and 0.298 s at the 99th percentile.

    Between two values the percentile is taken linearly: 0.1 + 0.99 (0.3 - 0.1). Download is 0.01 s too short in both.
    """
    virtual = [*a_round(1, 0.0, compute=0.5, wait=0.4), *a_round(2, 2.0, compute=1.5, client="b/0")]
    real = [
        *a_round(1, 0.0, download=0.09, compute=0.6, wait=0.4),
        *a_round(2, 2.0, download=0.09, compute=1.8, client="b/0"),
    ]
    rows = {row.phase: row for row in compare(virtual, real).phases}
    assert list(rows) == ["download", "compute", "upload", "wait"]
    assert rows["compute"][1:] == pytest.approx((2, 1.0, 1.2, 0.2, 0.298))
    assert rows["download"][1:] == pytest.approx((2, 0.1, 0.09, -0.01, 0.01))
    assert rows["upload"][1:] == pytest.approx((2, 0.2, 0.2, 0.0, 0.0))
    assert rows["wait"][1:] == pytest.approx((2, 0.2, 0.2, 0.0, 0.0))


def test_rounds_that_went_another_way_are_marked_and_left_out() -> None:
    """One client too late, another client, a failure, only on one clock; of five rounds the first alone tells of time.

    Its error is 10 %, that of the others would be 400 %; the phases, too, are those of the first round alone.
    """
    virtual = [
        *a_round(1, 0.0, compute=0.7),
        *a_round(2, 1.0, compute=0.7),
        *a_round(3, 2.0, compute=0.7),
        *a_round(4, 3.0, compute=0.7),
        *a_round(5, 4.0, compute=0.7),
    ]
    real = [
        *a_round(1, 0.0, compute=0.8),
        *a_round(2, 10.0, compute=4.7, late=1),
        *a_round(3, 20.0, compute=4.7, client="a/1"),
        RoundStarted(at=30.0, round=4, cohort=("a/0",)),
        RoundFailed(at=35.0, round=4, reason="0 updates, and nobody left to wait for"),
    ]
    agreement = compare(virtual, real)
    assert [row.note for row in agreement.rounds] == [
        "",
        "1 aggregated, 1 late, 0 lost; emulated 1 aggregated, 0 late, 0 lost",
        "another cohort",
        "failed: 0 updates, and nobody left to wait for; emulated 1 aggregated, 0 late, 0 lost",
        "on the virtual clock alone",
    ]
    assert [row.error for row in agreement.rounds] == [pytest.approx(0.1), None, None, None, None]
    assert agreement.rounds[3].measured == 5.0
    assert agreement.rounds[4].measured is None
    assert [row.pairs for row in agreement.phases] == [1, 1, 1, 1]
    assert as_text(agreement).endswith("within 10.00 % (median) and 10.00 % (worst), 1 of 5 rounds compared")


def test_a_round_without_emulated_time_has_no_error_in_per_cent() -> None:
    """Without links and devices everything happens at 0; the real clock cannot do that."""
    ideal = a_round(1, 0.0, download=0.0, compute=0.0, upload=0.0)
    agreement = compare(ideal, a_round(1, 0.0))
    assert [(row.error, row.note) for row in agreement.rounds] == [(None, "no emulated time")]
    assert as_text(agreement).endswith("round times cannot be told to agree, 0 of 1 rounds compared")


def test_the_text_has_a_table_of_rounds_a_table_of_phases_and_a_summary() -> None:
    """Errors of 10 % and 5 % have a median of 7.5 %; times have four decimals, notes stand at the end."""
    virtual = [*a_round(1, 0.0, compute=0.7), *a_round(2, 1.0, compute=1.7), *a_round(3, 3.0)]
    real = [*a_round(1, 0.0, compute=0.8), *a_round(2, 1.2, compute=1.6)]
    rounds, phases, summary = as_text(compare(virtual, real)).split("\n\n")
    assert rounds.splitlines() == [
        "round  emulated s  measured s  error %",
        "    1      1.0000      1.1000   +10.00",
        "    2      2.0000      1.9000    -5.00",
        "    3      0.8000           -        -  on the virtual clock alone",
    ]
    head, download, compute, *_ = phases.splitlines()
    assert head == "   phase  count  mean emulated s  mean measured s  mean error s  p99 |error| s"
    assert download == "download      2           0.1000           0.1000       0.00000        0.00000"
    assert compute == " compute      2           1.2000           1.2000       0.00000        0.10000"
    assert summary == "round times agree within 7.50 % (median) and 10.00 % (worst), 2 of 3 rounds compared"


@pytest.mark.parametrize("transport", ["memory", "grpc"])
def test_a_small_scenario_takes_on_the_real_clock_what_was_emulated(tmp_path: Path, transport: str) -> None:
    """Four rounds of 0.3 s. Real time is never shorter, and on any machine less than twice as long."""
    (tmp_path / "small.yaml").write_text(SCENARIO)
    plan = load(tmp_path / "small.yaml", transport=transport)
    said, watched = list[str](), list[str]()
    agreement = verify(
        plan.cells[0],
        watch=lambda cell: nullcontext([watched.append(cell.scenario.clock) or (lambda _: None)]),
        announce=said.append,
        out=tmp_path / "both",
        question=plan.question,
    )
    assert watched == ["virtual", "real"]
    [announcement] = said
    assert "real time" in announcement
    assert [row.note for row in agreement.rounds] == [""] * 4
    assert all(-0.01 < row.error < 1 for row in agreement.rounds)
    assert {row.phase: row.pairs for row in agreement.phases} == dict.fromkeys(
        ("download", "compute", "upload", "wait"), 8
    )
    for clock in ("virtual", "real"):
        result = json.loads((tmp_path / "both" / clock / "result.json").read_text())
        assert (result["clock"], result["transport"], result["stopped_by"]) == (clock, transport, "rounds")
        assert (tmp_path / "both" / clock / "scenario.yaml").read_text().startswith("# How true is")


def test_the_scenarios_own_clock_does_not_matter(tmp_path: Path) -> None:
    """The resolved scenarios of the two directories say each its own."""
    (tmp_path / "small.yaml").write_text(SCENARIO + "clock: real\n")
    cell = load(tmp_path / "small.yaml", [("stop.rounds", "1")]).cells[0]
    verify(cell, watch=lambda _: nullcontext([]), announce=lambda _: None, out=tmp_path / "both")
    clocks = [
        load(tmp_path / "both" / clock / "scenario.yaml").cells[0].scenario.clock for clock in ("virtual", "real")
    ]
    assert clocks == ["virtual", "real"]
