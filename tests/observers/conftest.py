"""What hand-written logs share: the end of each transfer that they begin."""

from collections.abc import Callable, Iterable, Iterator, Mapping

import pytest

from fedemu.events import Event, TaskSent, TransferEnded, UpdateSent


@pytest.fixture
def carried() -> Callable[..., Iterator[Event]]:
    """Gives a function that puts a TransferEnded after each TaskSent and UpdateSent.

    All of the message has left, or else as many bytes as a mapping says, by client, round and direction.
    """

    def add(events: Iterable[Event], left: Mapping[tuple[str, int, str], int] | None = None) -> Iterator[Event]:
        for event in events:
            yield event
            if isinstance(event, TaskSent | UpdateSent):
                direction = "down" if isinstance(event, TaskSent) else "up"
                size = (left or {}).get((event.client, event.round, direction), event.bytes)
                yield TransferEnded(
                    at=event.at,
                    client=event.client,
                    group=event.group,
                    round=event.round,
                    attempt=event.attempt,
                    direction=direction,
                    outcome="delivered" if size == event.bytes else "cut",
                    bytes=size,
                    wire=event.bytes,
                    began=event.at,
                    queued=0.0,
                    retransmitted=0,
                    delay=0.0 if size == event.bytes else None,
                )

    return add
