"""Sampling by number of examples."""

from collections import Counter

from scipy import stats

from fedemu.rng import stream
from fedemu.selectors.weighted import weighted
from fedemu.types import ClientView

CLIENTS = [ClientView(client=f"phones/{i}", group="phones", num_examples=n) for i, n in enumerate((10, 0, 30, 60))]


def test_one_client_is_chosen_in_proportion_to_its_examples() -> None:
    """10, 30 and 60 of 100 in 2,000 rounds: chi-square at 0.1 %."""
    rng = stream(0, "select")
    found = Counter(weighted()(CLIENTS, 1, rng)[0] for _ in range(2000))
    assert stats.chisquare([found[f"phones/{i}"] for i in (0, 2, 3)], [200, 600, 1200]).pvalue > 0.001
    assert found["phones/1"] == 0


def test_a_client_without_examples_is_chosen_only_if_nobody_else_is_there() -> None:
    """Three have some; the fourth seat is left to the one that has none."""
    for seed in range(20):
        assert list(weighted()(CLIENTS, 3, stream(seed, "select"))) == ["phones/0", "phones/2", "phones/3"]
    assert "phones/1" in weighted()(CLIENTS, 4, stream(0, "select"))
