"""Where a client's time goes: what it spends in each phase of a round."""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from fedemu.events import Event, RoundClosed, TaskReceived, TrainingFinished, UpdateReceived
from fedemu.observers.trips import Trip
from fedemu.types import ClientId, Seconds


class Spent(NamedTuple):
    """One client's time in one phase of one round."""

    client: ClientId
    group: str
    round: int
    """The one that the task is of; an update that is kept may wait for a later one."""
    phase: Literal["download", "compute", "upload", "wait"]
    seconds: Seconds


def spent(event: Event, trips: Sequence[Trip]) -> Iterator[Spent]:
    """Yield the phases that an event ends. METRICS.md says where each begins and ends.

    A process that does not see where a phase begins or ends, such as a server whose clients are elsewhere, leaves that
    phase out.

    Args:
        event: What happened.
        trips: Those that it is about: what `Trips.follow` returned for it.
    """
    if isinstance(event, TrainingFinished):
        yield Spent(event.client, event.group, event.round, "compute", event.duration)
    for trip in trips:
        who = trip.client, trip.group, trip.round
        match event:
            case TaskReceived():
                yield Spent(*who, "download", event.at - trip.sent)
            case UpdateReceived() if trip.trained is not None:
                yield Spent(*who, "upload", event.at - trip.trained)
            case RoundClosed() if trip.arrived is not None:
                yield Spent(*who, "wait", event.at - trip.arrived)
            case _:
                pass
