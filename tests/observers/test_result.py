"""The outcome adds up: two clients, two rounds, every number by hand."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from fedemu.events import (
    CallRetried,
    DelayMeasured,
    Evaluated,
    Event,
    RoundClosed,
    RoundFailed,
    RoundStarted,
    RunFinished,
    RunStarted,
    TaskReceived,
    TaskSent,
    UpdateLost,
    UpdateReceived,
    UpdateRejected,
    UpdateSent,
)
from fedemu.observers.result import Outcome

Carried = Callable[..., Iterator[Event]]


def about(at: float, client: str, round: int, attempt: int = 1) -> dict[str, Any]:
    return {"at": at, "client": f"phones/{client}", "group": "phones", "round": round, "attempt": attempt}


START = RunStarted(at=0.0, name="hand", seed=7, version="0.1.0", clients=2, parameters=10)
FIRST = (  # a and b answer; b's update needs two attempts
    RoundStarted(at=0.0, round=1, cohort=("phones/a", "phones/b")),
    TaskSent(**about(0.0, "a", 1), bytes=100, version=0),
    TaskSent(**about(0.0, "b", 1), bytes=100, version=0),
    TaskReceived(**about(1.0, "a", 1), bytes=100, version=0),
    TaskReceived(**about(1.0, "b", 1), bytes=100, version=0),
    UpdateSent(**about(2.0, "a", 1), bytes=110),
    UpdateSent(**about(2.0, "b", 1), bytes=110),
    UpdateReceived(**about(3.0, "a", 1), bytes=110, staleness=0),
    CallRetried(**about(3.5, "b", 1), direction="up", reason="not acknowledged", wait=0.5),
    UpdateSent(**about(4.0, "b", 1, 2), bytes=110),
    UpdateReceived(**about(5.0, "b", 1, 2), bytes=110, staleness=0),
    RoundClosed(at=5.0, round=1, aggregated=2, late=0, lost=0, duration=5.0),
    Evaluated(at=5.0, round=1, accuracy=0.6, loss=1.5),
)
SECOND = (  # a answers, b is cut off when 30 of 110 bytes of its update have left, and says so after the close
    RoundStarted(at=5.0, round=2, cohort=("phones/a", "phones/b")),
    TaskSent(**about(5.0, "a", 2), bytes=100, version=1),
    TaskSent(**about(5.0, "b", 2), bytes=100, version=1),
    UpdateSent(**about(7.0, "a", 2), bytes=110),
    UpdateSent(**about(7.5, "b", 2), bytes=110),
    UpdateReceived(**about(8.0, "a", 2), bytes=110, staleness=0),
    RoundClosed(at=8.0, round=2, aggregated=1, late=1, lost=0, duration=3.0),
    Evaluated(at=8.0, round=2, accuracy=0.5, loss=math.nan),
    UpdateLost(**about(8.2, "b", 2), reason="late", wasted=130),
)
FINISH = RunFinished(at=8.2, reason="rounds", time=8.0)
LEFT = {("phones/b", 2, "up"): 30}


def outcome(events: Iterable[Event], *, target: float | None = None, targets: tuple[float, ...] = ()) -> dict[str, Any]:
    result = Outcome(target=target, targets=targets)
    for event in events:
        result(event)
    data = {"dataset": "digits", "verified": "bundled"}
    return result.as_dict(clock="virtual", transport="memory", data=data, wall_seconds=0.5, digest="d")


def test_two_rounds_by_hand(carried: Carried) -> None:
    """Down 4 tasks of 100; up 4 updates of 110 and 30 bytes of another; 3 of each are in a model: 630."""
    result = outcome(carried((START, *FIRST, *SECOND, FINISH), LEFT))
    assert result.pop("links")["phones"]["up"]["outcomes"] == {"cut": 1, "delivered": 4}
    assert result == {
        "name": "hand",
        "seed": 7,
        "clock": "virtual",
        "transport": "memory",
        "version": "0.1.0",
        "data": {"dataset": "digits", "verified": "bundled"},
        "target": None,
        "targets": [],
        "stopped_by": "rounds",
        "final": {"accuracy": 0.5, "loss": None, "round": 2, "time": 8.0},
        "best": {"accuracy": 0.6, "round": 1, "time": 5.0},
        "emulated_seconds": 8.0,
        "wall_seconds": 0.5,
        "bytes": {"up": 470, "down": 400, "wasted": 240},
        "updates": {"aggregated": 3, "late": 1, "lost": 0, "rejected": 0},
        "calls": {"sent": 9, "retried": 1, "failed": 0},
        "digest": "d",
    }


def test_a_target_costs_what_had_been_spent_when_it_was_reached_first(carried: Carried) -> None:
    """60 % at 5 s, after 2 updates, 2 tasks and 3 uploads; the round after it adds nothing."""
    result = outcome(carried((START, *FIRST, *SECOND, FINISH), LEFT), target=0.6, targets=(0.55, 0.9))
    cost = {"time": 5.0, "round": 1, "updates": 2, "bytes": {"up": 330, "down": 200}}
    assert result["target"] == {"accuracy": 0.6, "reached": True, **cost}
    assert result["targets"][0] == {"accuracy": 0.55, "reached": True, **cost}


def test_a_target_that_was_not_reached_is_censored_at_the_end(carried: Carried) -> None:
    """Everything at 8 s: 4 updates asked for and settled."""
    result = outcome(carried((START, *FIRST, *SECOND, FINISH), LEFT), target=0.9)
    assert result["target"] == {
        "accuracy": 0.9,
        "reached": False,
        "time": 8.0,
        "round": 2,
        "updates": 4,
        "bytes": {"up": 470, "down": 400},
    }


def test_a_client_that_was_given_up_counts_before_it_says_so() -> None:
    """50 % is reached in round 2 while b, given up at the close, still has to answer the cancel: 2 + 1 + 1 updates."""
    lower = [Evaluated(at=5.0, round=1, accuracy=0.4, loss=2.0) if isinstance(e, Evaluated) else e for e in FIRST]
    assert outcome((START, *lower, *SECOND, FINISH), target=0.5)["target"]["updates"] == 4


def test_lost_updates_are_told_from_late_ones(carried: Carried) -> None:
    """Undelivered is lost and failed; a client that left with 30 of 100 bytes unsent is lost; refused is rejected."""
    events = (
        START,
        *(TaskSent(**about(0.0, "a", 1, attempt), bytes=100, version=0) for attempt in (1, 2, 3, 4, 5)),
        TaskSent(**about(0.0, "b", 1), bytes=100, version=0),
        UpdateLost(**about(1.0, "a", 1), reason="undelivered: task", wasted=500),
        UpdateLost(**about(2.0, "b", 1), reason="client left: reset", wasted=70),
        RoundFailed(at=2.0, round=1, reason="0 updates, and nobody left to wait for"),
        UpdateRejected(**about(3.0, "a", 2), reason="nan in delta"),
    )
    result = outcome(carried(events, {("phones/b", 1, "down"): 70}))
    assert result["updates"] == {"aggregated": 0, "late": 0, "lost": 2, "rejected": 1}
    assert result["rejections"] == {"nan in delta": 1}
    assert result["calls"]["failed"] == 1
    assert result["bytes"] == {"up": 0, "down": 570, "wasted": 570}


def test_a_server_that_sees_no_client_counts_what_it_received(carried: Carried) -> None:
    """Without UpdateSent: 2 tasks, and b's update came at the second attempt: 3 copies, one of them wasted."""
    result = outcome(carried((START, *(event for event in FIRST if not isinstance(event, UpdateSent)), FINISH)))
    assert result["bytes"] == {"up": 330, "down": 200, "wasted": 110}
    assert result["calls"]["sent"] == 4


def test_a_server_that_sees_no_client_counts_what_left_of_an_update_that_did_not_arrive(carried: Carried) -> None:
    """Of b's assignment 130 bytes crossed, 100 of them its task: 30 of the update. The 80 were never announced."""
    seen = (event for event in (*FIRST, *SECOND) if not isinstance(event, UpdateSent))
    assert outcome(carried((START, *seen, FINISH)))["bytes"] == {"up": 470, "down": 400, "wasted": 240}


def test_a_server_that_sees_no_client_does_not_take_a_task_for_an_update(carried: Carried) -> None:
    """The second copy of a's task has been announced and is still leaving when a gives up: 0 bytes up."""
    lost = UpdateLost(**about(3.0, "a", 1), reason="undelivered: update", wasted=100)
    tasks = [TaskSent(**about(at, "a", 1, attempt), bytes=100, version=0) for attempt, at in ((1, 0.0), (2, 2.5))]
    assert outcome(carried((START, *tasks, lost)))["bytes"] == {"up": 0, "down": 200, "wasted": 200}


def test_a_run_that_was_interrupted_has_an_outcome() -> None:
    """Nothing evaluated, nothing closed, no RunFinished: no final, time 0; the target is censored there."""
    result = outcome((START,), target=0.5)
    assert (result["final"], result["best"], result["stopped_by"], result["emulated_seconds"]) == (None, None, None, 0)
    assert result["target"]["reached"] is False


@pytest.mark.parametrize("reached", [0.6, 0.5999])
def test_a_target_is_reached_by_equality(reached: float) -> None:
    """60 % of 60 % is enough; a hair less is not."""
    events = (START, Evaluated(at=1.0, round=1, accuracy=reached, loss=1.0))
    assert outcome(events, target=0.6)["target"]["reached"] is (reached == 0.6)


def test_the_time_to_target_does_not_count_the_evaluation() -> None:
    """The round closes at 5 s and evaluating its model takes until 7.5 s: the target was reached at 5 s."""
    outcome = Outcome(target=0.6)
    for event in (START, *FIRST[:-1], Evaluated(at=7.5, round=1, accuracy=0.6, loss=1.5)):
        outcome(event)
    result = outcome.as_dict(clock="real", transport="grpc", data={}, wall_seconds=8.0, digest="")
    assert result["target"]["time"] == result["final"]["time"] == 5.0


def measured(direction: str, *achieved: float) -> list[Event]:
    """Messages that should have taken 40 ms."""
    link = {"group": "phones", "direction": direction, "requested": 0.04}
    return [DelayMeasured(at=1.0, **link, achieved=seconds) for seconds in achieved]


def test_the_delays_of_links_are_summed_up_on_the_real_clock() -> None:
    """Of 40 to 50 ms in steps of 0.1 ms, the median is 45 ms, and so on; a single message is all its percentiles."""
    result = Outcome(target=None)
    for event in (START, *measured("up", *(0.04 + 1e-4 * step for step in range(101))), *measured("down", 0.0404)):
        result(event)
    real = result.as_dict(clock="real", transport="grpc", data={}, wall_seconds=1.0, digest="")
    requested = dict.fromkeys(("mean", "p50", "p90", "p99", "max"), 0.04)
    assert real["delays"] == {
        "phones": {
            "down": {
                "count": 1,
                "requested": requested,
                "achieved": dict.fromkeys(requested, 0.0404),
                "error": dict.fromkeys(requested, 0.0004),
            },
            "up": {
                "count": 101,
                "requested": requested,
                "achieved": {"mean": 0.045, "p50": 0.045, "p90": 0.049, "p99": 0.0499, "max": 0.05},
                "error": {"mean": 0.005, "p50": 0.005, "p90": 0.009, "p99": 0.0099, "max": 0.01},
            },
        }
    }
    assert "delays" not in result.as_dict(clock="virtual", transport="grpc", data={}, wall_seconds=1.0, digest="")
