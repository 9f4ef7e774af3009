"""A client's time is divided into phases, by hand."""

from collections.abc import Iterable
from typing import Any

from fedemu.events import (
    Event,
    RoundClosed,
    RoundFailed,
    TaskReceived,
    TaskSent,
    TrainingFinished,
    TrainingStarted,
    UpdateLost,
    UpdateReceived,
    UpdateSent,
)
from fedemu.observers.phases import Spent
from fedemu.observers.phases import spent as ended_by
from fedemu.observers.trips import Trips


def about(at: float, round: int = 1, attempt: int = 1) -> dict[str, Any]:
    return {"at": at, "client": "phones/a", "group": "phones", "round": round, "attempt": attempt}


def phases(events: Iterable[Event]) -> list[Spent]:
    trips = Trips()
    return [phase for event in events for phase in ended_by(event, trips.follow(event))]


def spent(phase: Any, seconds: float, round: int = 1) -> Spent:
    return Spent("phones/a", "phones", round, phase, seconds)


def closed(at: float, round: int = 1) -> RoundClosed:
    return RoundClosed(at=at, round=round, aggregated=1, late=0, lost=0, duration=at)


def trip(start: float, round: int = 1) -> tuple[Event, ...]:
    """A second attempt at the task after 2 s is there 1 s later; 4 s of training, 2 s up."""
    return (
        TaskSent(**about(start, round), bytes=100, version=0),
        TaskSent(**about(start + 2, round, 2), bytes=100, version=0),
        TaskReceived(**about(start + 3, round, 2), bytes=100, version=0),
        TrainingStarted(**about(start + 3, round), examples=5),
        TrainingFinished(**about(start + 7, round), steps=1, loss=1.0, duration=4.0),
        UpdateSent(**about(start + 7, round), bytes=110),
        UpdateReceived(**about(start + 9, round), bytes=110, staleness=0),
    )


TOLD = [spent("download", 3), spent("compute", 4), spent("upload", 2)]


def test_a_trip_has_four_phases() -> None:
    """Retries are part of their phase: 3 s down; taken at 9 s, in a model at 12 s."""
    assert phases((*trip(0.0), closed(12.0))) == [*TOLD, spent("wait", 3)]


def test_each_phase_is_told_as_soon_as_it_is_known() -> None:
    """Compute when training ends, though the round is still open."""
    assert phases(trip(0.0)[:5]) == TOLD[:2]


def test_an_update_that_is_not_used_does_not_wait() -> None:
    """Late is said at once, unused when the run ends: no round closes with it."""
    for reason in ("late", "unused"):
        lost = UpdateLost(**about(9.0), reason=reason, wasted=210)
        assert phases((*trip(0.0), lost, closed(12.0))) == TOLD


def test_an_update_waits_through_a_failed_round() -> None:
    """Taken at 9 s, in a model at 20 s: 11 s, told of the round that the task was of."""
    failed = RoundFailed(at=10.0, round=1, reason="1 updates, and nobody left to wait for")
    assert phases((*trip(0.0), failed, closed(20.0, round=2)))[-1] == spent("wait", 11)


def test_a_second_task_in_a_round_does_not_disturb_the_first() -> None:
    """Without a barrier: taken at 9 s, asked again at 9 s, cut off at 13 s; the first waits until 15 s."""
    cut = UpdateLost(**about(13.0), reason="client left: reset", wasted=200)
    never = UpdateLost(**about(13.0), reason="client left: reset", wasted=0)
    assert phases((*trip(0.0), *trip(9.0)[:3], cut, closed(15.0))) == [*TOLD, spent("download", 3), spent("wait", 6)]
    # or its update comes at 18 s, just before the round closes with the first at 20 s
    late = UpdateLost(**about(18.0), reason="late", wasted=310)
    assert phases((*trip(0.0), *trip(9.0), late, closed(20.0))) == [*TOLD, *TOLD, spent("wait", 11)]
    # or it was taken back before it was sent
    assert phases((*trip(0.0), never, closed(15.0))) == [*TOLD, spent("wait", 6)]


def test_a_process_leaves_out_what_it_does_not_see() -> None:
    """A server sees the task go and the update come; a client sees its own training."""
    server = [event for event in trip(0.0) if isinstance(event, TaskSent | UpdateReceived)]
    assert phases((*server, closed(12.0))) == [spent("wait", 3)]
    assert phases(trip(0.0)[2:6]) == [spent("compute", 4)]
