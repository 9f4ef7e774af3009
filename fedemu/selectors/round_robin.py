"""Round robin: everybody in turn, in the scenario's order.

The next after the one chosen last is next. A client that is away when its turn comes has it as soon as it is back, and
once; one that comes later has its first turn at once. Nothing is drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from fedemu.selectors._weights import given_order
from fedemu.types import ClientId, ClientView, Rng, Selector


def round_robin() -> Selector:
    """Choose everybody in turn, in the scenario's order."""
    return RoundRobin()


@dataclass
class RoundRobin:
    """Remembers who had a turn."""

    turns: list[ClientId] = field(default_factory=list)
    """Those who had one, each once, the latest last."""

    def __call__(self, clients: Sequence[ClientView], count: int, rng: Rng) -> Sequence[ClientId]:
        turn = {client: number for number, client in enumerate(self.turns)}
        longest_ago = sorted(range(len(clients)), key=lambda i: (turn.get(clients[i].client, -1), i))
        chosen = longest_ago[:count]
        latest = dict.fromkeys(clients[i].client for i in chosen)
        self.turns = [*(client for client in self.turns if client not in latest), *latest]
        return given_order(clients, chosen)
