"""Every byte is accounted for: what links carried is what global models used, and what was wasted."""

from collections.abc import Iterable
from typing import Any

import pytest

from fedemu.events import Event, RunFinished, RunStarted
from fedemu.links._base import Packet, Retry, Stage
from fedemu.observers.prometheus import Metrics
from fedemu.observers.result import Outcome
from fedemu.types import Rng

RETRY = Retry(attempts=5, timeout=2.0, backoff=0.0)
CLIENT_SIDE = ("TaskReceived", "TrainingStarted", "TrainingFinished", "UpdateSent")


def first_lost(role: str, count: int) -> list[tuple[str, Stage]]:
    """Drop the first messages of that role in one direction, for any client."""
    left = iter(range(count))

    def stage(packet: Packet, _: Rng) -> Packet | None:
        return None if packet.role == role and next(left, None) is not None else packet

    return [("lost", stage)]


def account(events: Iterable[Event], end: float) -> dict[str, int]:
    """Return the bytes of `result.json`; the metrics, at the end, say the same."""
    outcome, metrics = Outcome(target=None), Metrics(run="toy", clock="virtual")
    started = RunStarted(at=0.0, name="toy", seed=1, version="0", clients=1, parameters=3)
    for event in (started, *events, RunFinished(at=end, reason="rounds", time=end)):
        outcome(event)
        metrics(event)
    result = outcome.as_dict(clock="virtual", transport="memory", data={}, wall_seconds=0.0, digest="")
    for direction in ("up", "down"):
        labels = {"run": "toy", "clock": "virtual", "group": "c", "direction": direction}
        assert metrics.registry.get_sample_value("fedemu_wire_bytes_total", labels) == result["bytes"][direction]
    carried: dict[str, int] = result["bytes"]
    return carried


def seen_by_a_server_alone(events: Iterable[Event]) -> list[Event]:
    own = [event for event in events if type(event).__name__ not in CLIENT_SIDE]
    return [event for event in own if getattr(event, "direction", "down") == "down"]


def sizes(played: Any, client: str = "c/0", round: int = 1) -> tuple[int, int]:
    """Return the bytes of one copy of a client's task and of its update."""
    task = played.the("TaskSent", client=client, round=round, attempt=1).bytes
    return task, played.the("UpdateSent", client=client, round=round, attempt=1).bytes


@pytest.mark.parametrize(
    ("direction", "role", "tasks", "updates"),
    [
        ("down", "request", 3, 1),  # two tasks lost: the third copy arrives
        ("up", "response", 3, 1),  # two receipts lost: the client has the task already, and ignores two copies
        ("up", "request", 1, 3),  # two updates lost
        ("down", "response", 1, 3),  # two answers lost: the server has the update already
    ],
)
def test_of_all_copies_one_was_used(toy: Any, direction: str, role: str, tasks: int, updates: int) -> None:
    """Two messages are lost, so the task or the update is sent three times: two of the copies are for nothing.

    Training takes 5 s, which leaves the server the time to send its task three times; the round waits for c/1, which
    leaves the client the time to send its update three times.
    """
    ways = {direction: toy.way(delay=0.1, after=first_lost(role, 2))}
    clients = {"c/0": toy.Client(takes=(5.0,), retry=RETRY, **ways), "c/1": toy.Client(takes=(20.0,))}
    played = toy.play(clients)
    (task, update), (other_task, other_update) = sizes(played), sizes(played, "c/1")
    carried = account(played.events, played.end)
    assert carried["down"] == tasks * task + other_task
    assert carried["up"] == updates * update + other_update
    assert carried["wasted"] == (tasks - 1) * task + (updates - 1) * update


def with_straggler(toy: Any, late: str, **link: Any) -> Any:
    """Play two rounds that close at 3 s and 4 s, or when c/0 and c/1 have answered after 1 s and 5 s of training."""
    clients = {"c/0": toy.Client(takes=(1.0,)), "c/1": toy.Client(takes=(5.0, 1.0), **link)}
    return toy.play(clients, policy={"deadline": 3.0, "late": late}, stop={"rounds": 4})


@pytest.mark.parametrize(
    ("late", "answered", "wasted"),
    [
        ("cancel", [2, 3, 4], 45),  # its first task was cancelled at 3 s: 45 bytes
        ("drop", [4], 45 + 58),  # at 5 s its update of round 1 came for nothing: 58 bytes
        ("keep", [1, 3, 4], 0),  # at 5 s its update of round 1 closed round 2
    ],
)
def test_only_what_a_round_closed_with_is_used(toy: Any, late: str, answered: list[int], wasted: int) -> None:
    """Used: the four trips of c/0, and of the straggler's those that are in a model."""
    played = with_straggler(toy, late)
    used = [sizes(played, "c/0", round) for round in (1, 2, 3, 4)]
    used += [sizes(played, "c/1", round) for round in answered]
    carried = account(played.events, played.end)
    assert carried["wasted"] == wasted
    assert carried["up"] + carried["down"] == sum(map(sum, used)) + wasted


def test_a_transfer_that_is_cut_off_counts_what_had_left(toy: Any) -> None:
    """Trained at 1 s, 80 bit/s: when the deadline comes at 3 s, 20 bytes of c/1's update have left."""
    clients = {"c/0": toy.Client(), "c/1": toy.Client(up=toy.way(rate=80.0))}
    played = toy.play(clients, policy={"deadline": 3.0})
    (task, update), (other_task, _) = sizes(played), sizes(played, "c/1")
    carried = account(played.events, played.end)
    assert carried == {"up": update + 20, "down": task + other_task, "wasted": other_task + 20}


def test_a_refused_update_is_wasted(toy: Any) -> None:
    """c/1's delta is not finite."""
    clients = {"c/0": toy.Client(), "c/1": toy.Client((float("nan"), 0.0, 0.0))}
    played = toy.play(clients)
    assert played.the("UpdateRejected").client == "c/1"
    assert account(played.events, played.end)["wasted"] == sum(sizes(played, "c/1"))


def test_an_undelivered_update_is_wasted_with_all_its_copies(toy: Any) -> None:
    """c/1's five attempts are lost, and it says so."""
    clients = {"c/0": toy.Client(), "c/1": toy.Client(up=toy.way(after=first_lost("request", 5)), retry=RETRY)}
    played = toy.play(clients)
    task, update = sizes(played, "c/1")
    carried = account(played.events, played.end)
    assert carried["wasted"] == task + 5 * update
    assert account(seen_by_a_server_alone(played.events), played.end) == carried


def test_an_update_that_no_round_took_is_wasted(toy: Any) -> None:
    """The goal is 2 and time is over at 1.5 s: c/0's update came at 1 s for nothing, and c/1's task."""
    clients = {"c/0": toy.Client(), "c/1": toy.Client(takes=(5.0,))}
    played = toy.play(clients, stop={"time": 1.5})
    assert [e.reason for e in played.of("UpdateLost", client="c/0")] == ["unused"]
    carried = account(played.events, played.end)
    assert (
        carried["wasted"]
        == carried["up"] + carried["down"]
        == sum(sizes(played)) + played.the("TaskSent", client="c/1").bytes
    )


def test_without_a_barrier_two_tasks_of_one_round_are_told_apart(toy: Any) -> None:
    """c/0's updates of 1 s and 2 s make the first model, and its third task, of round 2, is for nothing at 2.5 s."""
    clients = {"c/0": toy.Client(), "c/1": toy.Client(takes=(9.0,))}
    policy = {"goal": 2, "barrier": False, "late": "keep"}
    played = toy.play(clients, policy=policy, stop={"time": 2.5})
    tasks = [e.bytes for e in played.of("TaskSent", client="c/0")]
    updates = [e.bytes for e in played.of("UpdateSent", client="c/0")]
    assert [(e.round, e.attempt) for e in played.of("TaskSent", client="c/0")] == [(1, 1), (1, 1), (2, 1)]
    carried = account(played.events, played.end)
    used = sum(tasks[:2]) + sum(updates[:2])
    assert len(updates) == 2
    assert carried["wasted"] == tasks[2] + played.the("TaskSent", client="c/1").bytes
    assert carried["up"] + carried["down"] == used + carried["wasted"]


@pytest.mark.parametrize("role", ["request", "response"])
def test_a_server_alone_counts_the_copies_of_an_update_by_its_attempt(toy: Any, role: str) -> None:
    """Two updates are lost and the third arrives: three copies. Where answers are lost, it took the first."""
    direction = "up" if role == "request" else "down"
    ways = {direction: toy.way(delay=0.1, after=first_lost(role, 2))}
    played = toy.play({"c/0": toy.Client(retry=RETRY, **ways), "c/1": toy.Client(takes=(20.0,))})
    (task, update), (other_task, other_update) = sizes(played), sizes(played, "c/1")
    unseen = {"request": 0, "response": 2 * update}[role]
    together = account(played.events, played.end)
    assert together["up"] == 3 * update + other_update
    alone = account(seen_by_a_server_alone(played.events), played.end)
    assert alone == {"up": together["up"] - unseen, "down": task + other_task, "wasted": together["wasted"] - unseen}


@pytest.mark.parametrize("late", ["cancel", "drop", "keep"])
def test_a_server_alone_counts_what_stragglers_cost(toy: Any, late: str) -> None:
    """A slow uplink, 10 bytes a second: UpdateLost says how much of an update had left, and late ones came whole."""
    played = with_straggler(toy, late, up=toy.way(rate=80.0))
    assert played.of("UpdateLost", client="c/1") or late == "keep"
    assert account(seen_by_a_server_alone(played.events), played.end) == account(played.events, played.end)
