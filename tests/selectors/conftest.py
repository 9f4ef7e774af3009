"""A federation without models: rounds in which a selector chooses, and clients take their time or are given up."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from fedemu.rng import stream
from fedemu.types import ClientId, ClientView, Seconds, Selector


@dataclass
class Federation:
    """Clients phones/0, phones/1, ... and what the server knows of them."""

    views: list[ClientView]
    durations: Sequence[Seconds]
    """Of each client's tasks."""
    losses: Sequence[float]
    """Of each client's examples, all alike and the same in all rounds."""
    selections: int = 0
    rounds: list[Seconds] = field(default_factory=list)
    """How long each took."""

    def play(self, select: Selector, rounds: int, count: int, *, wait: int | None = None) -> list[list[ClientId]]:
        """Return whom the selector chose in each round.

        A round ends with the `wait` fastest, or with everybody; the others are given up by then.
        """
        return [self._round(select, count, count if wait is None else wait) for _ in range(rounds)]

    def _round(self, select: Selector, count: int, wait: int) -> list[ClientId]:
        self.selections += 1
        chosen = list(select(self.views, count, stream(0, "select", self.selections)))
        places = sorted((self.place(client) for client in chosen), key=lambda i: (self.durations[i], i))
        end = self.durations[places[:wait][-1]]
        for rank, i in enumerate(places):
            asked = replace(self.views[i], asked=self.views[i].asked + 1, last_asked=self.selections, duration=end)
            if rank < wait:
                loss = self.losses[i] if asked.num_examples else None
                asked = replace(
                    asked,
                    answered=asked.answered + 1,
                    duration=self.durations[i],
                    loss=loss,
                    squared_loss=None if loss is None else loss**2,
                )
            self.views[i] = asked
        self.rounds.append(end)
        return chosen

    @staticmethod
    def place(client: ClientId) -> int:
        """Return a client's position."""
        return int(client.partition("/")[2])


@pytest.fixture
def federation() -> Callable[..., Federation]:
    """Makes a federation of so many clients, with values for some of them."""

    def build(
        count: int,
        *,
        num_examples: int = 10,
        durations: Sequence[Seconds] | None = None,
        losses: Sequence[float] | None = None,
        known: Mapping[int, Mapping[str, Any]] | None = None,
    ) -> Federation:
        views = [ClientView(client=f"phones/{i}", group="phones", num_examples=num_examples) for i in range(count)]
        for i, facts in (known or {}).items():
            views[i] = replace(views[i], **facts)
        return Federation(views, durations or [1.0] * count, losses or [1.0] * count)

    return build
