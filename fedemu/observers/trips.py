"""Each task's way to a client and back, put together from its events.

Bytes follow one rule. Carried is what TransferEnded says; of that, a global model used one copy of the task and one of
the update for each update that it was made of, and all else was wasted: copies sent again or cut off, uploads that
nobody waited for, refused updates.

A server whose clients are other processes sees no UpdateSent. There the attempt number of an update that arrived says
how many copies of it were sent, and UpdateLost.wasted, less the copies of the task, what left of one that did not
arrive. What such a server cannot know, and what is in no total: copies sent after the one that it took, refused
updates, and what a client had sent when its connection broke.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fedemu.events import (
    Event,
    RoundClosed,
    RunFinished,
    TaskEvent,
    TaskSent,
    TrainingFinished,
    TransferEnded,
    UpdateLost,
    UpdateReceived,
    UpdateRejected,
    UpdateSent,
)
from fedemu.types import Bytes, ClientId, Seconds


@dataclass(slots=True, eq=False)
class Trip:
    """One task, as far as it is known here."""

    client: ClientId
    group: str
    round: int
    sent: Seconds
    """When the first attempt at the task was sent."""
    trained: Seconds | None = None
    """When training ended."""
    arrived: Seconds | None = None
    """When the server took the update."""
    task: Bytes = 0
    """One copy of the task."""
    update: Bytes = 0
    """The copy of the update that arrived."""
    down: Bytes = 0
    """All copies of the task that have ended."""


class Trips:
    """Follows every task of a run.

    Attributes:
        down: Bytes that links to clients carried, all trips together.
        up: Bytes that links from clients carried.
        used: Bytes of `down` and `up` that went into a global model.
        sees_uploads: Some client is in this process, so that what only clients know is known.
    """

    def __init__(self) -> None:
        self.down: Bytes = 0
        self.up: Bytes = 0
        self.used: Bytes = 0
        self._open: dict[tuple[ClientId, int], Trip] = {}
        """By client and round; a client's second task of a round begins when the first is settled or has arrived."""
        self._taken: list[Trip] = []
        """Arrived, and not yet in a global model; a failed round leaves them to the next."""
        self.sees_uploads = False
        """Some client is in this process."""

    def follow(self, event: Event) -> Sequence[Trip]:
        """Take an event; return the trips that it is about.

        That is its own for an event about a task, if the task was seen to begin and is not settled; those that a global
        model was made of for RoundClosed; and those that nothing settled for RunFinished. UpdateLost, UpdateRejected,
        RoundClosed and RunFinished settle: a trip that they return is certain, and does not come again.
        """
        match event:
            case TaskEvent():
                trip = self._about(event)
                return [] if trip is None else [trip]
            case RoundClosed():
                used, self._taken = self._taken, []
                self.used += sum(trip.task + trip.update for trip in used)
                return used
            case RunFinished():
                left = [*self._open.values(), *self._taken]
                self._open, self._taken = {}, []
                return left
            case _:
                return []

    def _about(self, event: TaskEvent) -> Trip | None:
        key = event.client, event.round
        trip = self._open.get(key)
        match event:
            case TaskSent():
                trip = self._open.setdefault(key, Trip(event.client, event.group, event.round, sent=event.at))
                trip.task = event.bytes
            case TransferEnded():
                self._carry(trip, event)
            case TrainingFinished() if trip is not None:
                trip.trained = event.at
            case UpdateSent():
                self.sees_uploads = True
            case UpdateReceived() if trip is not None:
                trip.arrived, trip.update = event.at, event.bytes
                if not self.sees_uploads:
                    self.up += event.attempt * event.bytes
                self._taken.append(self._open.pop(key))
            case UpdateLost():
                return self._lose(event)
            case UpdateRejected():
                return self._open.pop(key, None)
            case _:
                pass
        return trip

    def _lose(self, event: UpdateLost) -> Trip | None:
        trip = self._open.pop((event.client, event.round), None)
        if trip is not None:
            if not self.sees_uploads:
                self.up += max(0, event.wasted - trip.down)
        elif event.wasted:  # it had arrived; a task that was taken back before it was sent has wasted nothing
            trip = next((t for t in reversed(self._taken) if (t.client, t.round) == (event.client, event.round)), None)
            if trip is not None:
                self._taken.remove(trip)
        return trip

    def _carry(self, trip: Trip | None, event: TransferEnded) -> None:
        if event.direction == "up":
            self.up += event.bytes
            return
        self.down += event.bytes
        if trip is not None:
            trip.down += event.bytes
