"""TiFL: all of a round from one tier of equally fast clients, so that nobody waits for a slower one.

Chai et al., "TiFL: A Tier-based Federated Learning System", HPDC 2020. Clients are sorted by response time into
tiers of equal size; a round draws a tier, then clients of it, all equally likely. Without `interval` every tier is
equally likely, the paper's static policy "uniform". With it, Algorithm 2: every `interval` rounds, if the tier drawn
last did not get better since, tiers that learn worse become more likely. A tier's `credits` are how many rounds it may
have.

Deviations. The paper profiles before training; here clients of unknown duration are asked first, whatever their tier,
and until every tier has someone the other seats are drawn among all. Tiers are made anew for each selection from last
durations, as conditions change (the paper suggests to profile again now and then), of the clients that are there.
How well a tier learns is, in place of its test accuracy, which only clients could tell, the mean training loss of its
clients' last updates; the paper does not say how ChangeProbs weights tiers, here it is in proportion to that loss, so
that a tier none of whose clients ever answered is left out, as the paper leaves out those that drop out of profiling.
When no credits are left every tier has its credits anew, where the paper's loop would not end. Where the drawn tier
has fewer clients than seats, which the paper rules out, its neighbours help out, the faster before the slower.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fedemu.selectors._weights import draw, given_order
from fedemu.types import ClientId, ClientView, Rng, Selector
from fedemu.units import Count


def tifl(
    *,
    tiers: Count = 5,
    interval: Count | None = None,
    credits: list[Count] | None = None,
) -> Selector:
    """Choose from one tier of equally fast clients.

    Args:
        tiers: Into how many the clients are divided.
        interval: Rounds from one look at the tiers' losses to the next; default none, all tiers equally likely.
        credits: Rounds that each tier may have, the fastest first; default any number.
    """
    if credits is not None and len(credits) != tiers:
        raise ValueError(f"{len(credits)} credits for {tiers} tiers; expected one number for each tier")
    return Tifl(tiers, interval, credits, list(credits or []), [1 / tiers] * tiers)


@dataclass
class Tifl:
    """Remembers how likely each tier is, its credits and its loss at the last look."""

    tiers: int
    interval: int | None
    credits: list[int] | None
    left: list[int]
    """Credits left, of each tier; empty where they are not counted."""
    chances: list[float]
    """Probability of each tier, the fastest first."""
    current: int = 0
    """Tier that was drawn last."""
    rounds: int = 0
    """For which a tier was drawn."""
    losses: list[float] = field(default_factory=list)
    """Of each tier at the last look; empty before the first."""

    def __call__(self, clients: Sequence[ClientView], count: int, rng: Rng) -> Sequence[ClientId]:
        order = draw([1.0] * len(clients), len(clients), rng)
        # drawn in any case, so that how much is drawn never depends on what is known
        lot = float(rng.random())
        unknown = [i for i in order if clients[i].duration is None][:count]
        durations = {i: duration for i, client in enumerate(clients) if (duration := client.duration) is not None}
        seats = count - len(unknown)
        if seats == 0 or not durations:
            return given_order(clients, unknown)
        if len(durations) < self.tiers:
            return given_order(clients, [*unknown, *[i for i in order if i in durations][:seats]])
        by_speed = sorted(durations, key=lambda i: durations[i])
        members: list[list[int]] = [part.tolist() for part in np.array_split(by_speed, self.tiers)]
        self._adapt([_mean_loss([clients[i] for i in part]) for part in members])
        self._draw_tier(lot)
        tier_of = {i: tier for tier, part in enumerate(members) for i in part}
        shuffled = (i for i in order if i in tier_of)
        chosen = sorted(shuffled, key=lambda i: (abs(tier_of[i] - self.current), tier_of[i]))[:seats]
        return given_order(clients, [*unknown, *chosen])

    def _adapt(self, losses: list[float]) -> None:
        """Weight tiers by loss, if it is time to and the current tier got no better."""
        if self.interval is None or self.rounds % self.interval:
            return
        if self.losses and losses[self.current] >= self.losses[self.current] and sum(losses) > 0:
            self.chances = [loss / sum(losses) for loss in losses]
        self.losses = losses

    def _draw_tier(self, lot: float) -> None:
        """Draw a tier that has credits left, by a number in 0..1, and take one of them."""
        chances = self.chances
        if self.credits is not None:
            chances = self._affordable()
            if not any(chances):
                self.left = list(self.credits)
                chances = self._affordable()
        ends = np.cumsum(chances)
        self.current = int(np.searchsorted(ends, lot * ends[-1], side="right"))
        self.rounds += 1
        if self.left:
            self.left[self.current] -= 1

    def _affordable(self) -> list[float]:
        return [chance if left else 0.0 for chance, left in zip(self.chances, self.left, strict=True)]


def _mean_loss(members: Sequence[ClientView]) -> float:
    """Return the mean of the members' last losses; 0 where none is known."""
    losses = [client.loss for client in members if client.loss is not None]
    return float(np.mean(losses)) if losses else 0.0
