"""What stands around a device, in whole runs: slow trainings by chance, and joules by hand."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from fedemu import experiment
from fedemu.compute.inline import inline
from fedemu.events import EnergySpent, Event, TrainingFinished, TransferEnded
from fedemu.scenario import load

SCENARIO = """\
dataset: {{kind: digits, examples: {examples}}}
partition: {{kind: iid}}
model: {{kind: softmax}}
strategy: {{kind: fedavg}}
evaluate: {{every: end}}
rounds: {{deadline: {deadline}}}
clients:
  phones:
    count: {count}
    device: {device}
    link: {link}
stop: {{rounds: {rounds}}}
"""

Z = float(stats.norm.isf(0.5e-4))
Play = Callable[..., list[Any]]


@pytest.fixture
def play(tmp_path: Path) -> Play:
    """Run phones of ten examples each, and return the events."""

    def run(device: str, *, count: int = 2, rounds: int = 1, link: str = "{}", deadline: str = "1h") -> list[Event]:
        (tmp_path / "small.yaml").write_text(
            SCENARIO.format(
                examples=10 * count, device=device, count=count, rounds=rounds, link=link, deadline=deadline
            )
        )
        events: list[Event] = []
        with inline()() as compute:
            experiment.run(load(tmp_path / "small.yaml").cells[0], compute, observers=[events.append])
        return events

    return run


def slow(play: Play, probability: str) -> set[tuple[str, int]]:
    """Return who was slow in which of 20 rounds of 50 clients that else take 1 s."""
    device = f"{{kind: constant, per_example: 100ms, straggler: {{probability: {probability}, factor: 4}}}}"
    trained = [e for e in play(device, count=50, rounds=20) if isinstance(e, TrainingFinished)]
    assert len(trained) == 1000
    assert {round(e.duration, 6) for e in trained} <= {1.0, 4.0}
    return {(e.client, e.round) for e in trained if e.duration > 2}


def check_share(count: int, probability: float) -> None:
    """Of 1,000 independent trainings: binomial, within Z deviations (alpha = 1e-4)."""
    assert abs(count - 1000 * probability) <= Z * math.sqrt(1000 * probability * (1 - probability))


def test_stragglers_are_as_many_as_asked_for_and_the_same_at_any_share(play: Play) -> None:
    """20 % and 80 % of 1,000 trainings, 4 times as long; who is slow at 20 % is slow at 80 %, at 0 % nobody."""
    few, many = slow(play, "20%"), slow(play, "80%")
    check_share(len(few), 0.2)
    check_share(len(many), 0.8)
    assert few < many
    assert not slow(play, "0%")
    with pytest.raises(AssertionError):
        check_share(len(few), 0.3)


def test_who_is_slow_is_drawn_anew_each_round(play: Play) -> None:
    """At 20 %, nobody of 50 is slow in all of 20 rounds, and hardly anybody in none (0.8^20 is 1 %)."""
    found = slow(play, "20%")
    rounds = [sum(client == f"phones/{slot}" for client, _ in found) for slot in range(50)]
    assert max(rounds) < 20
    assert sum(count == 0 for count in rounds) <= 5


def test_joules_are_power_times_seconds(play: Play) -> None:
    """1,000 bytes/s up, 2,000 down, without headers: 2 W and 1 W for as long as that takes; 3 W for 1 s of training."""
    events = play(
        "{kind: constant, per_example: 100ms, energy: {compute: 3W, up: 2W, down: 1W}}",
        link="{tcp: none, up: {rate: 8kbit/s}, down: {rate: 16kbit/s}}",
    )
    sent = {(e.client, e.direction): e.bytes for e in events if isinstance(e, TransferEnded)}
    spent = {(e.client, e.phase): e.joules for e in events if isinstance(e, EnergySpent)}
    assert len(sent) == 4
    assert len(spent) == 6
    for client in ("phones/0", "phones/1"):
        assert spent[client, "compute"] == 3.0
        assert spent[client, "up"] == pytest.approx(2 * sent[client, "up"] / 1000, rel=1e-9)
        assert spent[client, "down"] == pytest.approx(sent[client, "down"] / 2000, rel=1e-9)


def test_a_device_without_powers_tells_no_energy(play: Play) -> None:
    """And one that is told of one phase alone spends nothing in the others."""
    assert not [e for e in play("{kind: constant, per_example: 1ms}") if isinstance(e, EnergySpent)]
    events = play("{kind: constant, per_example: 100ms, energy: {compute: 3W}}")
    assert {e.phase: e.joules for e in events if isinstance(e, EnergySpent)} == {"down": 0, "compute": 3, "up": 0}


def test_an_update_that_is_given_up_before_it_was_sent_costs_no_energy(play: Play) -> None:
    """The round closes at 3 s, in mid-stall: nothing had left, and no time had been spent sending."""
    events = play(
        "{kind: constant, per_example: 100ms, energy: {up: 1W}}",
        link="{stall: {probability: 50%, duration: 9s}, up: {rate: 1Mbit/s}}",
        deadline="3s",
        count=8,
    )
    cut = {e.client: e for e in events if isinstance(e, TransferEnded) and e.outcome == "cut"}
    assert 0 < len(cut) < 8
    for client, transfer in cut.items():
        assert (transfer.at, transfer.bytes) == (3.0, 0)
        assert transfer.began <= transfer.at
        assert [e.joules for e in events if isinstance(e, EnergySpent) and (e.client, e.phase) == (client, "up")] == [0]


def test_a_straggler_may_have_any_share_of_its_speed(play: Play) -> None:
    """Between 5 % and 100 %, uniform: 1 s takes 1 to 20 s, and 1 / duration passes Kolmogorov and Smirnov's test."""
    device = "{kind: constant, per_example: 100ms, straggler: {probability: 100%, speed: [5%, 100%]}}"
    trained = [e.duration for e in play(device, count=50, rounds=10) if isinstance(e, TrainingFinished)]
    assert len(trained) == 500
    assert 1.0 <= min(trained) < 1.05
    assert 10.0 < max(trained) <= 20.0
    assert stats.kstest([1 / took for took in trained], stats.uniform(0.05, 0.95).cdf).pvalue > 1e-3


def test_who_is_slow_does_not_depend_on_how_slow(play: Play) -> None:
    """Whether is drawn before how much: of 40 %, the same trainings with a factor and with a share of speed."""

    def slow_ones(how: str) -> set[tuple[str, int]]:
        device = f"{{kind: constant, per_example: 100ms, straggler: {{probability: 40%, {how}}}}}"
        trained = [e for e in play(device, count=20, rounds=5) if isinstance(e, TrainingFinished)]
        return {(e.client, e.round) for e in trained if e.duration > 1.5}

    by_factor, by_speed = slow_ones("factor: 4"), slow_ones("speed: [5%, 50%]")
    assert by_factor == by_speed
    assert 0 < len(by_factor) < 100
