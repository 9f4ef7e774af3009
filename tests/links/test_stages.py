"""The contract of every stage: packets get later, cut or lost, and are otherwise what they were."""

import pkgutil
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fedemu.links
from fedemu.links._base import Loss, Outage, Packet, Stage
from fedemu.links.delay import Law, delay
from fedemu.links.drop import drop
from fedemu.links.loss import Gemodel, loss
from fedemu.links.outage import outage
from fedemu.links.reset import reset
from fedemu.links.stall import stall

LAWS: Sequence[Law] = ("uniform", "normal", "pareto", "paretonormal", "lognormal", "exponential")
STAGES: dict[str, list[Callable[[], Stage]]] = {
    "delay": [
        lambda: delay(delay=0.1, distribution="constant"),
        *(
            lambda law=law, rho=rho: delay(delay=0.1, jitter=0.02, correlation=rho, distribution=law)
            for law in LAWS
            for rho in (0.0, 0.5)
        ),
    ],
    "drop": [lambda: drop(request=0.5, response=0.5)],
    "stall": [lambda: stall(probability=0.5, duration=4.0)],
    "reset": [lambda: reset(probability=0.5)],
}
MODEL = Gemodel(p=0.1, r=0.4, one_minus_h=0.9, one_minus_k=0.01)
LOSSES: dict[str, list[Callable[[], Loss]]] = {
    "loss": [
        lambda: loss(random=0.1),
        lambda: loss(random=0.0),
        lambda: loss(random=0.1, correlation=0.5),
        lambda: loss(random=0.1, burst=3.0),
        lambda: loss(gemodel=MODEL),
        lambda: loss(gemodel=MODEL, clock="time"),
    ]
}
OUTAGES: dict[str, list[Callable[[], Outage]]] = {
    "outage": [
        lambda: outage(every=100.0, lasting=30.0),
        lambda: outage(every=100.0, lasting=90.0, law="weibull", shape=0.6),
    ]
}
PACKETS = st.builds(
    Packet,
    size=st.integers(0, 10**9),
    at=st.floats(0, 1e6),
    role=st.sampled_from(["request", "response", "control"]),
    attempt=st.integers(1, 5),
    cut=st.none() | st.floats(0, 1),
)


def test_every_kind_is_held_to_its_contract() -> None:
    """One entry above for each public file of the room."""
    files = {name for _, name, package in pkgutil.iter_modules(fedemu.links.__path__) if not package}
    assert {name for name in files if not name.startswith("_")} == {*STAGES, *LOSSES, *OUTAGES}


@pytest.mark.parametrize("kind", STAGES)
@given(packets=st.lists(PACKETS, min_size=1, max_size=5), seed=st.integers(0, 2**32))
def test_links_never_go_back_in_time(kind: str, packets: list[Packet], seed: int) -> None:
    """Later or at the same time, same size, role and attempt; the same streams give the same packets again."""
    for build in STAGES[kind]:
        one, other = build(), build()
        for number, packet in enumerate(packets):
            after = one(packet, lambda number=number: np.random.default_rng((seed, number)))
            assert after == other(packet, lambda number=number: np.random.default_rng((seed, number)))
            if after is not None:
                assert after.at >= packet.at
                assert after.cut is None or 0 <= after.cut <= (1 if packet.cut is None else packet.cut)
                assert after._replace(at=packet.at, cut=packet.cut) == packet


@pytest.mark.parametrize("kind", LOSSES)
@given(counts=st.lists(st.integers(0, 3000), min_size=1, max_size=10), seed=st.integers(0, 2**32))
def test_no_more_packets_are_lost_than_were_sent(kind: str, counts: list[int], seed: int) -> None:
    """None below 0 either; the same stream loses the same ones again; the mean is a share below 1."""
    for build in LOSSES[kind]:
        one, other = build(), build()
        assert 0 <= one.mean < 1
        for number, count in enumerate(counts):
            lost = one(count, number * 0.5, np.random.default_rng((seed, number)))
            assert 0 <= lost <= count
            assert lost == other(count, number * 0.5, np.random.default_rng((seed, number)))


@pytest.mark.parametrize("kind", OUTAGES)
@given(seed=st.integers(0, 2**32))
def test_outages_are_disjoint_and_in_order(kind: str, seed: int) -> None:
    """From 0 on, each of some length and with time between; the same stream gives the same ones again."""
    for build in OUTAGES[kind]:
        one, other = (build()(np.random.default_rng(seed)) for _ in range(2))
        now = -1.0
        for _ in range(20):
            interval = next(one)
            assert interval == next(other)
            assert interval.start >= 0
            assert now < interval.start < interval.end
            now = interval.end
