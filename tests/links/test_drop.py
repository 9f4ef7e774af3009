"""Drop loses the messages that it should, as often as it should."""

import numpy as np
import pytest
from scipy import stats

from fedemu.links._base import Packet, Role
from fedemu.links.drop import drop

N = 20_000


@pytest.mark.parametrize(("role", "chance"), [("request", 0.01), ("response", 0.3), ("control", 0.0)])
def test_each_role_is_lost_at_its_own_rate(role: Role, chance: float) -> None:
    """Exact binomial test at alpha 1e-4; control messages are never lost."""
    rng, stage = np.random.default_rng(2), drop(request=0.01, response=0.3)
    lost = sum(stage(Packet(1, 0.0, role), lambda: rng) is None for _ in range(N))
    assert stats.binomtest(lost, N, chance).pvalue > 1e-4


def test_what_is_lost_at_1_percent_is_lost_at_5_percent() -> None:
    """The same stream: 200 and 1000 losses expected, the first among the second."""
    few, many = (
        [drop(request=p)(Packet(1, 0.0, "request"), lambda rng=rng: rng) is None for _ in range(N)]
        for p, rng in ((0.01, np.random.default_rng(3)), (0.05, np.random.default_rng(3)))
    )
    assert sum(few) > 100
    assert all(b for a, b in zip(few, many, strict=True) if a)
    assert sum(many) > sum(few)


def test_a_message_that_gets_through_is_unchanged() -> None:
    """No chance of loss: the same packet, at the same time."""
    packet = Packet(7, 3.5, "request", 2)
    assert drop()(packet, lambda: np.random.default_rng(1)) == packet
