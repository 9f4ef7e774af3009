"""Oort: clients that are useful and fast, with enough exploration to find them.

Lai, Zhu, Madhyastha, Chowdhury, "Oort: Efficient Federated Learning via Guided Participant Selection", OSDI 2021,
Algorithm 1, with what its code (SymbioticLab/Oort) adds. Of the clients that were asked before, the share
1 - exploration is exploited: drawn in proportion to utility among those whose utility is at least `cut_off` of the
last seat's. The other seats go to clients never asked before, all equally likely, as their speed is not known before
they answer. Utility is

    (clipped reward - least) / range + sqrt(0.1 ln R / R_last),  times (T / t)^penalty if t > T

with reward num_examples * sqrt(mean squared loss), R the number of the selection, R_last that in which the client was
asked last, t its last duration and T the preferred one, a percentile of all durations known. Where the statistical
utility that exploitation gains falls, the pacer allows a longer T.

As in the code: rewards are clipped at the quantile `clip` and scaled to 0..1, T is a percentile that the pacer moves,
defaults are the code's (decay 0.95 and cut-off 0.7 where the paper has 0.98 and 95 %; clip 0.98 where it has 95 %).
As in the paper: exploration decays after a selection; the cut-off is that of the last seat, not of the one after; the
pacer acts where the gain fell (the code: where it is within 10 %; and it turns back where it grew sixfold).
Different from both: nobody is barred after many rounds, which is off in the code too; where fewer new clients are left
than seats for them, exploitation takes the rest (the code draws those at random), and the reverse; squared losses are
those of the last update, not a moving average; an update that comes after the next selection is no gain. A client that
was asked and never answered was explored: its duration, a lower bound, counts, and its reward is 0. To ask more clients
than are waited for, 1.1 times in the paper, is up to the round: `rounds: {concurrency: 11, goal: 10}`. The paper has a
barrier; without one each time somebody is asked is a selection, in R, for the decay and for the pacer.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from pydantic import Field

from fedemu.selectors._weights import draw, given_order
from fedemu.types import ClientId, ClientView, Rng, Seconds, Selector
from fedemu.units import Count, Ratio


def oort(
    *,
    exploration: Ratio = 0.9,
    exploration_min: Ratio = 0.2,
    exploration_decay: Ratio = 0.95,
    penalty: Annotated[float, Field(ge=0)] = 2.0,
    clip: Ratio = 0.98,
    cut_off: Ratio = 0.7,
    round_threshold: Annotated[float, Field(ge=0, le=100)] = 10.0,
    pacer_step: Count = 20,
    pacer_delta: Annotated[float, Field(ge=0, le=100)] = 5.0,
) -> Selector:
    """Choose clients that are useful and fast, and explore.

    Args:
        exploration: Share of the seats for clients never asked before, in the first selection.
        exploration_min: Below which it does not fall.
        exploration_decay: Factor from selection to selection.
        penalty: Power of T / t for clients slower than preferred, the paper's alpha.
        clip: Quantile of the rewards at which higher ones are cut.
        cut_off: Share of the last seat's utility from which a client may be drawn.
        round_threshold: Percentile of the known durations that is preferred at first; 100 is any.
        pacer_step: Selections whose gains the pacer compares, the paper's W.
        pacer_delta: Percentile points that it adds.
    """
    if exploration_min > exploration:
        raise ValueError(
            f"exploration_min {exploration_min} is above exploration {exploration}; expected at most as much"
        )
    return Oort(
        exploration_min,
        exploration_decay,
        penalty,
        clip,
        cut_off,
        pacer_step,
        pacer_delta,
        exploration,
        round_threshold,
    )


@dataclass
class Oort:
    """Remembers how much it explores, what it prefers and what it gained."""

    exploration_min: float
    exploration_decay: float
    penalty: float
    clip: float
    cut_off: float
    pacer_step: int
    pacer_delta: float
    exploration: float
    """In the next selection."""
    round_threshold: float
    """Percentile, as the pacer has it now."""
    selections: int = 0
    """So far, the paper's R."""
    exploited: dict[ClientId, int] = field(default_factory=dict)
    """Whom the last selection exploited, and how often each had answered by then."""
    gains: list[float] = field(default_factory=list)
    """Mean reward of the exploited who answered, for the last 2 * pacer_step selections, oldest first."""

    def __call__(self, clients: Sequence[ClientView], count: int, rng: Rng) -> Sequence[ClientId]:
        self.selections += 1
        self._pace(clients)
        known = [i for i, client in enumerate(clients) if client.asked]
        unexplored = [i for i, client in enumerate(clients) if not client.asked]
        seats = max(count - math.ceil(count * self.exploration), count - len(unexplored))
        utility = self._utilities([clients[i] for i in known])
        # one draw over all, though two are made of it, so that how much is drawn never depends on who is known
        weights = np.ones(len(clients))
        weights[known] = utility
        order = draw(weights.tolist(), len(clients), rng)
        least = self._least(utility, seats)
        admitted = {i for i, value in zip(known, utility, strict=True) if value >= least}
        exploited = [i for i in order if i in admitted][:seats]
        new = set(unexplored)
        explored = [i for i in order if i in new][: count - len(exploited)]
        self.exploited = {clients[i].client: clients[i].answered for i in exploited}
        self.exploration = max(self.exploration * self.exploration_decay, self.exploration_min)
        return given_order(clients, exploited + explored)

    def _pace(self, clients: Sequence[ClientView]) -> None:
        """Count what the last selection gained, and prefer longer rounds where gains fall."""
        rewards = [
            _reward(client)
            for client in clients
            if client.client in self.exploited and client.answered > self.exploited[client.client]
        ]
        step = self.pacer_step
        self.gains = [*self.gains, float(np.mean(rewards)) if rewards else 0.0][-2 * step :]
        if (
            len(self.gains) == 2 * step
            and self.selections % step == 0
            and sum(self.gains[:step]) > sum(self.gains[step:])
        ):
            self.round_threshold = min(100.0, self.round_threshold + self.pacer_delta)

    def _utilities(self, known: Sequence[ClientView]) -> list[float]:
        """Return the utility of clients that were asked before, >= 0."""
        preferred = _percentile(
            [client.duration for client in known if client.duration is not None], self.round_threshold
        )
        rewards = [_reward(client) for client in known]
        scaled = _scaled(rewards, self.clip)
        utilities = []
        for client, statistical in zip(known, scaled, strict=True):
            value = statistical + math.sqrt(0.1 * math.log(self.selections) / client.last_asked)
            if client.duration is not None and client.duration > preferred:
                value *= (preferred / client.duration) ** self.penalty
            utilities.append(value)
        return utilities

    def _least(self, utilities: Sequence[float], seats: int) -> float:
        """Return the utility from which a client may be drawn for that many seats."""
        if not 0 < seats < len(utilities):
            return 0.0
        return self.cut_off * sorted(utilities, reverse=True)[seats - 1]


def _reward(client: ClientView) -> float:
    """Return a client's statistical utility; 0 before its first answer, and without examples."""
    return 0.0 if client.squared_loss is None else client.num_examples * math.sqrt(client.squared_loss)


def _scaled(rewards: Sequence[float], clip: float) -> list[float]:
    """Scale rewards above 0 to 0..1, from just below the least to the largest, cut at the quantile `clip`; 0 stays."""
    positive = sorted(reward for reward in rewards if reward > 0)
    if not positive:
        return [0.0] * len(rewards)
    most = positive[min(int(len(positive) * clip), len(positive) - 1)]
    # the code's constants: the least keeps some utility, and nothing is divided by zero
    least = 0.999 * positive[0]
    span = max(positive[-1] - least, 1e-4)
    return [(min(reward, most) - least) / span if reward > 0 else 0.0 for reward in rewards]


def _percentile(durations: Sequence[Seconds], threshold: float) -> Seconds:
    """Return that percentile of the durations; infinity if there are none, or for 100."""
    if not durations or threshold >= 100:
        return math.inf
    return sorted(durations)[min(int(len(durations) * threshold / 100), len(durations) - 1)]
