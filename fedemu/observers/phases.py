"""Where a client's time goes: what it spends in each phase of a round."""

from collections.abc import Callable
from typing import Literal, NamedTuple

from fedemu.events import Event, RoundClosed, TaskReceived, TrainingFinished, UpdateReceived
from fedemu.observers.trips import Trips
from fedemu.types import ClientId, Seconds


class Spent(NamedTuple):
    """One client's time in one phase of one round."""

    client: ClientId
    group: str
    round: int
    """The one that the task is of; an update that is kept may wait for a later one."""
    phase: Literal["download", "compute", "upload", "wait"]
    seconds: Seconds


class Phases:
    """Folds events into phases. METRICS.md says where each begins and ends.

    A process that does not see where a phase begins or ends, such as a server whose clients are elsewhere, leaves that
    phase out.

    Args:
        tell: Told of each phase as soon as it is known.
    """

    def __init__(self, tell: Callable[[Spent], None]) -> None:
        self._tell = tell
        self._trips = Trips()

    def __call__(self, event: Event) -> None:
        if isinstance(event, TrainingFinished):
            self._tell(Spent(event.client, event.group, event.round, "compute", event.duration))
        for trip in self._trips.follow(event):
            who = trip.client, trip.group, trip.round
            match event:
                case TaskReceived():
                    self._tell(Spent(*who, "download", event.at - trip.sent))
                case UpdateReceived() if trip.trained is not None:
                    self._tell(Spent(*who, "upload", event.at - trip.trained))
                case RoundClosed() if trip.arrived is not None:
                    self._tell(Spent(*who, "wait", event.at - trip.arrived))
                case _:
                    pass
