"""Bytes of a round: models times participants, and nothing that is not named (S2-24)."""

import pytest
import torch

from fedemu import experiment
from fedemu.compute.inline import inline
from fedemu.events import RoundClosed, RoundStarted, TransferEnded
from fedemu.net._pb import federation_pb2 as pb
from fedemu.net.messages import Message
from fedemu.scenario.file import parse
from fedemu.scenario.grid import Cell

SOFTMAX = 650
"""Parameters on the digits: 64 x 10 and 10."""


def rounds(**keys):
    """Run three rounds of 4 of 8 clients; return each round's cohort and bytes, down and up, and the result."""
    resolved = {
        "name": "bytes",
        "seed": 1,
        "dataset": {"kind": "digits", "examples": 160},
        "partition": {"kind": "iid"},
        "model": {"kind": "softmax"},
        "strategy": {"kind": "fedavg"},
        "rounds": {"concurrency": 4},
        "clients": {"phones": {"count": 8, "link": {"up": {"rate": "1Mbit/s"}}}},
        "stop": {"rounds": 3},
        **keys,
    }
    sums, found, cohorts = {"down": 0, "up": 0}, [], []

    def observe(event):
        if isinstance(event, TransferEnded):
            sums[event.direction] += event.bytes
        elif isinstance(event, RoundClosed):
            found.append((cohorts[-1], sums["down"], sums["up"]))
            sums.update(down=0, up=0)
        elif isinstance(event, RoundStarted):
            cohorts.append(event.cohort)

    with inline()() as compute:
        result = experiment.run(Cell("", {}, 1, parse(resolved), resolved, ""), compute, observers=[observe])
    return found, result


def size(header, **vectors):
    return Message(header, {name: torch.zeros(count) for name, count in vectors.items()}).size


NAME = pb.Assignment(round=1, turn=1, attempt=1)
TASK = size(pb.Task(assignment=NAME), model=SOFTMAX)
LATER = size(pb.Task(assignment=NAME, version=1), model=SOFTMAX)
FACTS = {"num_examples": 20, "num_steps": 1, "train_loss": 1.0, "squared_loss": 1.0}
UPDATE = size(pb.Update(assignment=NAME, **FACTS), delta=SOFTMAX)
AGAIN = size(pb.Task(assignment=NAME, version=1, accepted=pb.Assignment(round=1, turn=1)), model=SOFTMAX) - LATER
LATER_UPDATE = size(pb.Update(assignment=NAME, version=1, **FACTS), delta=SOFTMAX)


def test_a_round_costs_each_client_one_model_down_and_one_update_up() -> None:
    """4 participants x (2,600 bytes + framing).

    Version 0 takes no byte on the wire, later ones two; 6 bytes tell a client again which update of its was accepted.
    """
    found, result = rounds()
    (first, down, up), *later = found
    assert (down, up) == (4 * TASK, 4 * UPDATE)
    before = set(first)
    for cohort, down, up in later:
        assert (down, up) == (4 * LATER + AGAIN * len(before & {*cohort}), 4 * LATER_UPDATE)
        before |= {*cohort}
    assert AGAIN == 6
    assert result["bytes"] == {
        "down": sum(down for _, down, _ in found),
        "up": 4 * (UPDATE + 2 * LATER_UPDATE),
        "wasted": 0,
    }
    assert TASK - 4 * SOFTMAX < 40
    assert UPDATE - 4 * SOFTMAX < 60


@pytest.mark.parametrize(
    ("strategy", "down", "up"),
    [("scaffold", SOFTMAX, SOFTMAX), ("fednova", 0, 1), ("feddyn", 0, 0), ("fedadam", 0, 0)],
)
def test_what_an_algorithm_sends_beside_is_on_the_link(strategy: str, down: int, up: int) -> None:
    """SCAFFOLD's c and dc are as large as the model; FedNova's a is one number; names and lengths are framing."""
    found, _ = rounds(strategy={"kind": strategy})
    plain, _ = rounds()
    for (_, here_down, here_up), (_, plain_down, plain_up) in zip(found, plain, strict=True):
        assert 4 * 4 * down <= here_down - plain_down <= 4 * (4 * down + 20 * bool(down))
        assert 4 * 4 * up <= here_up - plain_up <= 4 * (4 * up + 20 * bool(up))
