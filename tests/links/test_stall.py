"""Stall holds up first requests by chance, and runs that differ in the chance alone are coupled."""

import numpy as np
import pytest
from scipy import stats

from fedemu.links._base import Packet
from fedemu.links.stall import stall


def stalled(probability: float, packet: Packet, n: int = 20_000) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    rng, stage = np.random.default_rng(5), stall(probability=probability, duration=4.0)
    return np.array([stage(packet, lambda: rng) == packet._replace(at=packet.at + 4.0) for _ in range(n)])


@pytest.mark.parametrize("probability", [0.0, 0.2, 0.6, 1.0])
def test_messages_stall_as_often_as_asked(probability: float) -> None:
    """Exact binomial test at alpha 1e-4; 0 never and 1 always."""
    count = int(stalled(probability, Packet(1, 2.0, "request")).sum())
    assert stats.binomtest(count, 20_000, probability).pvalue > 1e-4


def test_who_stalls_at_20_percent_stalls_at_80_percent() -> None:
    """One uniform draw u < p: the sets are nested."""
    few, many = (stalled(p, Packet(1, 2.0, "request")) for p in (0.2, 0.8))
    assert many[few].all()
    assert many.sum() > few.sum() > 0


@pytest.mark.parametrize("packet", [Packet(1, 2.0, "request", 2), Packet(1, 2.0, "response"), Packet(1, 2.0)])
def test_retries_answers_and_control_messages_do_not_stall(packet: Packet) -> None:
    """A stall is drawn once per client and round; even with certainty it is the first request that stalls."""
    assert not stalled(1.0, packet, n=100).any()


def test_a_packet_that_can_stall_draws_one_number_and_others_none() -> None:
    """Whatever the chance, so that no other draw moves."""
    for packet, draws in ((Packet(1, 0.0, "request"), 1), (Packet(1, 0.0, "request", 3), 0), (Packet(1, 0.0), 0)):
        rng, reference = np.random.default_rng(1), np.random.default_rng(1)
        stall(probability=0.0, duration=1.0)(packet, lambda rng=rng: rng)
        reference.random(draws)
        assert rng.bit_generator.state == reference.bit_generator.state
