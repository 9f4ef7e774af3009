"""FLGo's nine modes: the chances are its formulas, and slots are online with them."""

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy import stats

from fedemu.availabilities._base import Availability, Member
from fedemu.availabilities._process import slots
from fedemu.availabilities.bernoulli import bernoulli
from fedemu.availabilities.by_label import by_label
from fedemu.availabilities.by_label_count import by_label_count
from fedemu.availabilities.label_cycle import label_cycle
from fedemu.availabilities.less_data import less_data
from fedemu.availabilities.lognormal import lognormal
from fedemu.availabilities.more_data import more_data
from fedemu.availabilities.sine_lognormal import sine_lognormal
from fedemu.types import Rng

SLOTS = 4800

LABELS = [(5, 0, 3, 0, 0), (0, 0, 0, 0, 9), (1, 1, 1, 1, 1), (0, 90, 0, 10, 0)]
MEMBERS = [Member(f"a/{slot}", labels) for slot, labels in enumerate(LABELS)]


def draw(client: str) -> Rng:
    return np.random.default_rng([3, *client.encode()])


def table(availability: Availability, members: Sequence[Member] = MEMBERS) -> "np.ndarray":
    """Return who is online in which minute, shape (clients, SLOTS); online changes at minutes only."""
    result = np.zeros((len(members), SLOTS), np.bool_)
    for row, intervals in zip(result, availability(members, draw), strict=True):
        for start, end in itertools.takewhile(lambda i: i.start < SLOTS * 60, intervals):
            assert start % 60 == 0
            assert end % 60 == 0 or end == math.inf
            row[round(start / 60) : round(min(end, SLOTS * 60) / 60)] = True
    return result


def check(online: "np.ndarray", chance: Callable[[int, int], float], cycle: int = 1) -> None:
    """For each client and slot of the cycle, the times online are binomial at alpha = 1e-4 (Bonferroni)."""
    z = float(stats.norm.isf(0.5e-4 / (len(online) * cycle)))
    for client, row in enumerate(online):
        for slot in range(cycle):
            there = row[slot::cycle]
            p, n = chance(client, slot), len(there)
            assert abs(int(there.sum()) - n * p) <= z * math.sqrt(n * p * (1 - p)) + 1e-9, (client, slot)


def test_bernoulli_is_one_chance_for_all() -> None:
    """80 % and slots that do not depend on each other; 85 % fails."""
    online = table(bernoulli(probability=0.8))
    check(online, lambda client, slot: 0.8)
    with pytest.raises(AssertionError):
        check(online, lambda client, slot: 0.85)
    pairs = float((online[:, 1:] & online[:, :-1]).mean())
    assert pairs == pytest.approx(0.64, abs=4 * math.sqrt(0.64 * 0.36 * 3 / (4 * SLOTS)))


def test_by_label_is_the_smallest_label() -> None:
    """Five classes, beta 0.4: smallest labels 0, 4, 0, 1 give 0.6 + 0.4 * (0, 1, 0, 1/4)."""
    check(table(by_label(beta=0.4)), lambda client, slot: (0.6, 1.0, 0.6, 0.7)[client])


def test_by_label_count_is_how_many_labels() -> None:
    """Two, one, five, two of five labels, beta 0.5."""
    check(table(by_label_count(beta=0.5)), lambda client, slot: (0.7, 0.6, 1.0, 0.7)[client])


def test_more_and_less_data_are_over_the_largest() -> None:
    """8, 9, 5, 100 examples; square roots over 10, and sqrt(5) over square roots."""
    check(table(more_data(beta=0.5)), lambda client, slot: math.sqrt((8, 9, 5, 100)[client]) / 10)
    check(table(less_data(beta=0.5)), lambda client, slot: math.sqrt(5 / (8, 9, 5, 100)[client]))


def test_label_cycle_is_the_turn_of_labels() -> None:
    """beta 0.5, 8 slots, last label 4: turns (k + 1) / 8 in [0, 1/2], [1, 1], [0, 1] and [1/4, 3/4]."""
    turns = ["11110000", "00000001", "11111111", "01111100"]
    check(table(label_cycle(beta=0.5, cycle=8)), lambda client, slot: 1.0 if turns[client][slot] == "1" else 0.5, 8)


def test_lognormal_is_over_the_largest_of_the_population() -> None:
    """sigma = -ln(1 - beta) = 1 at beta = 1 - 1/e; z is the stream's first normal; the largest is always online."""
    z = [float(draw(member.client).standard_normal()) for member in MEMBERS]
    online = table(lognormal(beta=1 - 1 / math.e))
    check(online, lambda client, slot: math.exp(z[client] - max(z)))
    assert online[z.index(max(z))].all()


def test_lognormal_shares_are_lognormal() -> None:
    """The chances of 300 clients, measured over 80 h, over one another: log ratios have deviation sigma sqrt(2)."""
    members = [Member(f"a/{slot}", (1,)) for slot in range(300)]
    shares = table(lognormal(beta=0.3), members).mean(axis=1)
    sigma = -math.log(0.7)
    assert float(np.log(shares).std()) == pytest.approx(sigma, rel=4 / math.sqrt(2 * 300))


def test_sine_lognormal_swings_as_flgo_s_table() -> None:
    """0.4 sin + 0.5 at 24 points from 0 to 2 pi, both ends included, as numpy's linspace has them."""
    z = [float(draw(member.client).standard_normal()) for member in MEMBERS]
    wave = 0.4 * np.sin(np.linspace(0, 2 * np.pi, 24)) + 0.5
    sigma = -math.log(0.9)
    check(table(sine_lognormal()), lambda c, slot: math.exp(sigma * (z[c] - max(z))) * float(wave[slot]), 24)


def test_beta_0_has_everybody_online() -> None:
    """In all modes that have one, but for the wave."""
    for availability in (
        by_label(beta=0.0),
        by_label_count(beta=0.0),
        label_cycle(beta=0.0),
        lognormal(beta=0.0),
        more_data(beta=0.0),
        less_data(beta=0.0),
    ):
        assert table(availability).all()


def test_a_client_without_examples_is_as_the_docstrings_say() -> None:
    """Smallest label 0; no label of five; no turn; never; as one example."""
    empty = [*MEMBERS, Member("a/4", (0,) * 5)]
    chances = [
        (by_label(beta=0.4), 0.6),
        (by_label_count(beta=0.5), 0.5),
        (label_cycle(beta=0.5), 0.5),
        (more_data(beta=0.5), 0.0),
        (less_data(beta=0.5), 1.0),
    ]
    for availability, chance in chances:
        check(table(availability, empty)[4:], lambda client, slot, chance=chance: chance)  # type: ignore[misc]


def test_chances_are_coupled() -> None:
    """Who is online at 30 % is online at 60 % too."""
    few, many = (table(bernoulli(probability=p)) for p in (0.3, 0.6))
    assert (many | ~few).all()


def test_a_chance_that_never_comes_does_not_hang() -> None:
    """1e-12 a minute is a slot in two million years: it counts as none, and so does what is as near to certainty."""
    assert list(slots((1e-12, 0.0), 60.0, draw("a/0"))) == []
    assert list(slots((1 - 1e-12,), 60.0, draw("a/0"))) == [(0.0, math.inf)]
