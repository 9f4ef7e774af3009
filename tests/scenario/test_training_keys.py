"""How training changes from round to round, from group to group, and with the time that there is for it."""

from pathlib import Path
from typing import Any

import pytest

from fedemu import experiment
from fedemu.compute.inline import inline
from fedemu.errors import Fault, ScenarioError
from fedemu.events import TrainingFinished, TrainingStarted
from fedemu.scenario import load
from fedemu.types import Training

SCENARIO = """\
name: base
dataset: {{kind: digits, examples: 100}}
partition: {{kind: iid}}
model: {{kind: softmax}}
strategy: {{kind: fedavg}}
training: {training}
rounds: {rounds}
clients:
  phones:
    count: 2
    device: {{kind: constant, per_example: 10ms}}
    training: {group}
  laptops: {{count: 2, device: {{kind: constant, per_example: 10ms}}}}
stop: {{rounds: 3}}
"""


@pytest.fixture
def written(tmp_path: Path):
    """Write a scenario with those sections, and return its path."""

    def write(*, training="{}", group="{}", rounds="{}") -> Path:
        path = tmp_path / "base.yaml"
        path.write_text(SCENARIO.format(training=training, group=group, rounds=rounds))
        return path

    return write


def in_rounds(path: Path, group: str, *rounds: int) -> list[Training]:
    keys = load(path).cells[0].scenario.training_in(group)
    return [keys.in_round(round) for round in rounds]


def test_the_learning_rate_decays_from_round_to_round(written) -> None:
    """0.1 in the first, 0.1 * 0.5^(r - 1) in round r."""
    found = in_rounds(written(training="{lr: 0.1, lr_decay: 0.5}"), "phones", 1, 2, 3, 4)
    assert [training.lr for training in found] == [0.1, 0.05, 0.025, 0.0125]


def test_epochs_decay_to_the_nearest_number_and_to_one_at_least(written) -> None:
    """5, 2.5, 1.25, 0.625: halves go up, and it never ends."""
    found = in_rounds(written(training="{epochs: 5, epochs_decay: 0.5}"), "phones", 1, 2, 3, 4, 50)
    assert [training.epochs for training in found] == [5, 3, 1, 1, 1]


def test_a_schedule_changes_keys_from_a_round_on(written) -> None:
    """What it does not say stays; of entries that hold, the last counts for its keys."""
    schedule = "[{round: 3, lr: 0.01}, {round: 4, lr: 0.5, batch_size: full}, {round: 5, epochs: 4}]"
    path = written(training=f"{{lr: 0.1, epochs: 2, schedule: {schedule}}}")
    found = in_rounds(path, "phones", 1, 2, 3, 4, 5, 6)
    assert [training.lr for training in found] == [0.1, 0.1, 0.01, 0.5, 0.5, 0.5]
    assert [training.epochs for training in found] == [2, 2, 2, 2, 4, 4]
    assert [training.batch_size for training in found] == [32, 32, 32, None, None, None]


def test_a_change_decays_as_if_it_had_held_from_the_start(written) -> None:
    """From round 3 on 1.0 instead of 0.1, times 0.5^2."""
    path = written(training="{lr: 0.1, lr_decay: 0.5, schedule: [{round: 3, lr: 1.0}]}")
    assert [training.lr for training in in_rounds(path, "phones", 2, 3)] == [0.05, 0.25]


def test_the_keys_of_a_group_win(written) -> None:
    """Phones have their own rate and schedule and the scenario's decay; laptops have the scenario's."""
    path = written(
        training="{lr: 0.1, lr_decay: 0.5, schedule: [{round: 2, epochs: 9}]}",
        group="{lr: 0.8, schedule: [{round: 3, epochs: 2}]}",
    )
    phones, laptops = (in_rounds(path, group, 1, 2, 3) for group in ("phones", "laptops"))
    assert [(training.lr, training.epochs) for training in phones] == [(0.8, 1), (0.4, 1), (0.2, 2)]
    assert [(training.lr, training.epochs) for training in laptops] == [(0.1, 1), (0.05, 9), (0.025, 9)]


def test_a_groups_empty_schedule_takes_the_scenarios_away(written) -> None:
    """It is written, and so it wins."""
    path = written(training="{schedule: [{round: 2, epochs: 9}]}", group="{schedule: []}")
    assert [training.epochs for training in in_rounds(path, "phones", 1, 2)] == [1, 1]
    assert [training.epochs for training in in_rounds(path, "laptops", 1, 2)] == [1, 9]


def run(path: Path) -> list[Any]:
    events: list[Any] = []
    with inline()() as compute:
        experiment.run(load(path).cells[0], compute, observers=[events.append])
    return events


def durations(path: Path, client: str) -> list[float]:
    return [e.duration for e in run(path) if isinstance(e, TrainingFinished) and e.client == client]


def test_a_run_trains_as_its_schedule_says(written) -> None:
    """25 examples at 10 ms: 0.25 s an epoch. 2, then 3, then 1; and steps of 8 examples or of all at once."""
    schedule = "[{round: 2, epochs: 3}, {round: 3, epochs: 1, batch_size: full}]"
    path = written(training=f"{{epochs: 2, batch_size: 8, schedule: {schedule}}}")
    finished = [e for e in run(path) if isinstance(e, TrainingFinished) and e.client == "phones/0"]
    assert [(e.duration, e.steps) for e in finished] == [(0.5, 8), (0.75, 12), (0.25, 1)]


def test_a_device_trains_for_as_long_as_its_budget(written) -> None:
    """20 epochs of 0.25 s would take 5 s: a phone does 7 in 1.9 s, and one in 0.1 s; laptops do them all."""
    for budget, epochs in (("1900ms", 7), ("100ms", 1)):
        path = written(training="{epochs: 20, batch_size: full}", group=f"{{budget: {budget}}}")
        finished = [e for e in run(path) if isinstance(e, TrainingFinished) and e.round == 1]
        found = {e.client: (e.duration, e.steps) for e in finished}
        assert found["phones/0"] == found["phones/1"] == (0.25 * epochs, epochs)
        assert found["laptops/0"] == (5.0, 20)


def test_a_run_of_ticks_lasts_its_ticks(written) -> None:
    """Three of 2 s; phones have 0.25 s of work, and begin at 0, 2 and 4 s."""
    events = run(written(rounds="{tick: 2s}"))
    assert [e.at for e in events if isinstance(e, TrainingStarted) and e.client == "phones/0"] == [0.0, 2.0, 4.0]
    assert events[-1].time == 6.0


def test_who_is_late_is_cancelled_but_with_a_tick_or_without_a_barrier_kept(written) -> None:
    """What is written wins."""
    for rounds, late in (
        ("{}", "cancel"),
        ("{tick: 2s}", "keep"),
        ("{barrier: false, goal: 1}", "keep"),
        ("{tick: 2s, late: drop}", "drop"),
    ):
        assert load(written(rounds=rounds)).cells[0].scenario.rounds.for_the_late == late


def faults(path: Path) -> list[tuple[int, str, str]]:
    with pytest.raises(ScenarioError) as caught:
        load(path)
    return [(f.line, f.key, f.text) for f in caught.value.faults if isinstance(f, Fault)]


@pytest.mark.parametrize(
    ("sections", "line", "key", "text"),
    [
        ({"training": "{lr_decay: 0}"}, 6, "training.lr_decay", "0 "),
        ({"training": "{lr_decay: 1.1}"}, 6, "training.lr_decay", "1.1 "),
        ({"training": "{epochs_decay: 2}"}, 6, "training.epochs_decay", "2 "),
        ({"training": "{budget: 0s}"}, 6, "training.budget", "'0s' "),
        ({"training": "{schedule: [{round: 1, lr: 0.1}]}"}, 6, "training.schedule.0.round", "1 "),
        ({"training": "{schedule: [{lr: 0.1}]}"}, 6, "training.schedule.0.round", "missing"),
        (
            {"training": "{schedule: [{round: 2, budget: 1s}]}"},
            6,
            "training.schedule.0.budget",
            "'budget' is not a key",
        ),
        ({"rounds": "{tick: 2s, goal: 1}"}, 7, "rounds.goal", "tick says when a round closes; write one of the two"),
        ({"rounds": "{tick: 2s, deadline: 1s}"}, 7, "rounds.deadline", "tick says when a round closes"),
    ],
)
def test_what_cannot_be_is_a_fault(written, sections: dict[str, str], line: int, key: str, text: str) -> None:
    """In the line where it stands."""
    ((at, where, why),) = faults(written(**sections))
    assert (at, where) == (line, key)
    assert why.startswith(text)


def test_a_tick_beside_both_a_goal_and_a_deadline_is_two_faults(written) -> None:
    """Each is one too many."""
    assert [key for _, key, _ in faults(written(rounds="{tick: 2s, goal: 1, deadline: 1s}"))] == [
        "rounds.goal",
        "rounds.deadline",
    ]
