"""The keys of `rounds`: who takes part in a round, and when it closes."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from fedemu.keys import Clash, Keys
from fedemu.scenario.kind import Kind, KindOf
from fedemu.units import Count, Duration, Ratio


class Rounds(Keys):
    """Who takes part in a round, and when it closes."""

    select: Annotated[Kind, KindOf("selectors")] = Kind("selectors", "uniform")
    """How the cohort is chosen; default uniform."""
    fraction: Ratio | None = None
    """Share of the clients in the cohort; default 100%."""
    concurrency: Count | None = None
    """Clients at work at once; instead of fraction."""
    goal: Count | None = None
    """Updates that close a round; default the whole cohort."""
    quorum: Count = 1
    """Fewest updates that a round can close with at its deadline."""
    deadline: Annotated[Duration, Field(gt=0)] | None = None
    """Time after which a round closes without the stragglers; default never."""
    tick: Annotated[Duration, Field(gt=0)] | None = None
    """Time that a round takes, whatever comes, and another without a quorum; instead of goal and deadline."""
    barrier: bool = True
    """True is synchronous; false lets clients start again as they finish."""
    late: Literal["cancel", "drop", "keep"] | None = None
    """What becomes of those at work when a round closes; default cancel, but keep with a tick or without a barrier."""

    def cohort(self, clients: int) -> int:
        """Return how many of that many clients are at work at once."""
        if self.concurrency is not None:
            return self.concurrency
        return max(1, round((1.0 if self.fraction is None else self.fraction) * clients))

    @property
    def for_the_late(self) -> Literal["cancel", "drop", "keep"]:
        """`late`, or its default."""
        return self.late or ("cancel" if self.barrier and self.tick is None else "keep")

    def clashes(self) -> Iterator[Clash]:
        """Yield numbers that no round can meet."""
        if self.fraction is not None and self.concurrency is not None:
            keys = frozenset({"fraction", "concurrency"})
            yield Clash(keys, ("concurrency",), "fraction says it already; write one of the two")
        if self.barrier and self.goal is not None and self.concurrency is not None and self.goal > self.concurrency:
            text = f"goal {self.goal} is out of reach of concurrency {self.concurrency}"
            yield Clash(frozenset({"goal", "concurrency", "barrier"}), ("goal",), text)
        for key in ("goal", "deadline"):
            if self.tick is not None and getattr(self, key) is not None:
                yield Clash(frozenset({"tick", key}), (key,), "tick says when a round closes; write one of the two")
