"""The contract of every stage: packets get later or lost, and are otherwise what they were."""

import pkgutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fedemu.links
from fedemu.links._base import Packet
from fedemu.links.delay import delay
from fedemu.links.drop import drop
from fedemu.links.stall import stall

STAGES = {
    "delay": [
        delay(delay=0.1, jitter=j, distribution=d) for j in (0.0, 0.02) for d in ("normal", "uniform", "lognormal")
    ],
    "drop": [drop(request=0.5, response=0.5)],
    "stall": [stall(probability=0.5, duration=4.0)],
}
PACKETS = st.builds(
    Packet,
    size=st.integers(0, 10**9),
    at=st.floats(0, 1e6),
    role=st.sampled_from(["request", "response", "control"]),
    attempt=st.integers(1, 5),
)


def test_every_stage_is_held_to_the_contract() -> None:
    """One entry above for each public file of the room."""
    assert {name for _, name, package in pkgutil.iter_modules(fedemu.links.__path__) if not package} == {
        "_base",
        "_fluid",
        *STAGES,
    }


@pytest.mark.parametrize("kind", STAGES)
@given(packet=PACKETS, seed=st.integers(0, 2**32))
def test_links_never_go_back_in_time(kind: str, packet: Packet, seed: int) -> None:
    """Later or at the same time, same size, role and attempt; the same stream gives the same packet."""
    for stage in STAGES[kind]:
        after = stage(packet, lambda: np.random.default_rng(seed))
        assert after == stage(packet, lambda: np.random.default_rng(seed))
        if after is not None:
            assert after.at >= packet.at
            assert after._replace(at=packet.at) == packet
