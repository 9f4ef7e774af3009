"""Shipped scenarios of papers: their laws hold. Learning is replaced by a small one where the law is about time."""

import statistics
from collections import defaultdict
from pathlib import Path

import pytest
from scipy.stats import binom

from fedemu import experiment
from fedemu.compute.inline import inline
from fedemu.events import Evaluated, Event
from fedemu.scenario import load

PAPERS = Path(__file__).parents[2] / "scenarios" / "papers"

pytestmark = pytest.mark.slow


def test_the_delay_grid_follows_flowers_law():
    """R rounds of m = 3 clients take R (c + d (1 - (1-p)^m)) on average (seeds.md, S1.2).

    Exactly R c at p = 0 and R (c + d) at p = 1. In between the number of delayed rounds is binomial over 20 seeds
    times 5 rounds: within its 99.9 % interval. The streams are coupled: every seed's time grows with p and with d.
    """
    small = [("dataset", "{kind: digits, examples: 500}"), ("model", "{kind: softmax}")]
    grid = load(PAPERS / "s1-flower-delay" / "grid.yaml", small)
    times: dict[tuple[float, float], dict[int, float]] = defaultdict(dict)
    with inline()() as compute:
        for cell in grid.cells:
            stall = cell.scenario.clients["pcs"].link.stall
            assert stall is not None
            result = experiment.run(cell, compute)
            times[stall.params["duration"], stall.params["probability"]][cell.seed] = result["emulated_seconds"]
    durations, probabilities = ([3.0, 4.0, 5.0], [0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert sorted(times) == [(d, p) for d in durations for p in probabilities]
    rounds, seeds, c = 5, range(1, 21), 500 * 0.002
    for d in durations:
        for p in probabilities:
            assert list(times[d, p]) == list(seeds)
            hits = sum(times[d, p][seed] - rounds * c for seed in seeds) / d
            low, high = binom.interval(0.999, rounds * len(seeds), 1 - (1 - p) ** 3)
            assert low - 1e-6 <= hits <= high + 1e-6, (d, p)
        for seed in seeds:
            assert times[d, 0.0][seed] == pytest.approx(rounds * c, abs=1e-9)
            assert times[d, 1.0][seed] == pytest.approx(rounds * (c + d), abs=1e-9)
            curve = [times[d, p][seed] for p in probabilities]
            assert curve == sorted(curve)
    for p in probabilities[1:]:
        means = [sum(times[d, p].values()) for d in durations]
        assert means == sorted(means)
        assert len(set(means)) == 3


@pytest.mark.timeout(600)  # sixty rounds of softmax regression in steps of ten examples: a minute and a half of a core
def test_with_nine_stragglers_in_ten_what_they_have_done_is_worth_taking() -> None:
    """S2-20: FedProx's loss curve lies below that of FedAvg, which drops them, on Synthetic(1,1), rounds 11 to 20.

    The whole 200 rounds take an hour; the README has them.
    """
    plan = load(
        PAPERS / "s2-fedprox-stragglers.yaml",
        [("stop.rounds", "20"), ("matrix", "{clients.users.device.straggler.probability: [90%]}")],
    )
    losses: dict[str, list[float]] = {}
    for cell in plan.cells:
        curve = losses[cell.variant] = []

        def observe(event: Event, curve: list[float] = curve) -> None:
            if isinstance(event, Evaluated):
                curve.append(event.loss)

        with experiment.workers(cell.scenario) as compute:
            experiment.run(cell, compute, observers=[observe])
    late = {variant: statistics.mean(curve[10:]) for variant, curve in losses.items()}
    assert len(losses["fedavg-drop"]) == 20
    assert late["fedprox-1"] < late["fedavg-drop"]
    assert late["fedprox-0"] < late["fedavg-drop"]
