"""A group's links in figures, number by number."""

from typing import Any

import pytest

from fedemu.events import EnergySpent, TransferEnded
from fedemu.observers.prometheus import Metrics
from fedemu.observers.result import Outcome
from fedemu.observers.transfers import Transfers, spread

WHO: dict[str, Any] = {"client": "phones/1", "group": "phones", "round": 1, "attempt": 1}


def ended(seconds: float, size: int, **other: Any) -> TransferEnded:
    usual: dict[str, Any] = {"outcome": "delivered", "queued": 0.0, "retransmitted": 0, "delay": 0.1, "wire": size}
    return TransferEnded(at=10.0 + seconds, began=10.0, direction="up", bytes=size, **WHO, **{**usual, **other})


EVENTS = (
    ended(1.0, 1000),
    ended(4.0, 1000, queued=3.0, retransmitted=2, delay=0.3),
    ended(0.5, 200, outcome="reset", retransmitted=1, delay=None),
)


def test_a_links_figures_are_those_of_what_has_left() -> None:
    """8000 and 2000 bit/s, 5000 in the mean; the reset one counts with its bytes and its segment, not with its time."""
    transfers = Transfers()
    for event in EVENTS:
        transfers.follow(event)
    up = transfers.as_dict()["phones"]["up"]
    assert (up["outcomes"], up["bytes"], up["retransmitted"]) == ({"delivered": 2, "reset": 1}, 2200, 3)
    assert [up[key]["mean"] for key in ("seconds", "throughput", "queued", "delay")] == [2.5, 5000, 1.5, 0.2]
    assert up["throughput"]["max"] == 8000


def test_what_took_no_time_has_no_throughput() -> None:
    """An ideal link: 1000 bytes in no time."""
    transfers = Transfers()
    transfers.follow(ended(0.0, 1000, delay=0.0))
    assert transfers.as_dict()["phones"]["up"]["throughput"] is None


def test_percentiles_are_exact() -> None:
    """Of 0, 1, ..., 100 the median is 50, and 99 is the 99th percentile."""
    assert spread([float(i) for i in range(101)]) == {"mean": 50, "p50": 50, "p90": 90, "p99": 99, "max": 100}  # type: ignore[arg-type]


def test_the_metrics_say_the_same() -> None:
    """Two transfers of 5 s in all, 3 of them queued; three segments; 6 + 4 J of training."""
    metrics, outcome = Metrics(run="hand", clock="virtual"), Outcome(target=None)
    energy = [EnergySpent(at=20.0, phase="compute", joules=joules, **WHO) for joules in (6.0, 4.0)]
    for event in (*EVENTS, *energy):
        metrics(event)
        outcome(event)
    labels = {"run": "hand", "clock": "virtual", "group": "phones"}

    def value(name: str, **more: str) -> float | None:
        return metrics.registry.get_sample_value(name, {**more, **labels})

    assert value("fedemu_transfers_total", direction="up", outcome="reset") == 1
    assert value("fedemu_transfer_seconds_sum", direction="up") == 5.0
    assert value("fedemu_transfer_queued_seconds_total", direction="up") == 3.0
    assert value("fedemu_retransmitted_segments_total", direction="up") == 3
    assert value("fedemu_energy_joules_total", phase="compute") == pytest.approx(10.0)
