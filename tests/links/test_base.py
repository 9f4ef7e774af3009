"""Retry waits as gRPC's back-off does."""

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from fedemu.links._base import Retry


@pytest.mark.parametrize(("attempt", "mean"), [(1, 1.0), (2, 1.6), (3, 2.56), (12, 120.0), (40, 120.0)])
def test_each_wait_is_1_6_times_the_last_and_the_mean_stops_at_two_minutes(attempt: int, mean: float) -> None:
    """1.6^11 = 176 s is over 120 s; a uniform draw in 0.8..1.2 of the mean fills that interval."""
    rng = np.random.default_rng(1)
    waits = [Retry().wait(attempt, rng) / mean for _ in range(2000)]
    assert 0.8 <= min(waits) < 0.801
    assert 1.199 < max(waits) <= 1.2
    assert np.mean(waits) == pytest.approx(1, abs=0.01)  # deviation 0.115 / sqrt(2000) = 0.0026


def test_the_wait_scales_with_the_backoff() -> None:
    """The same draw: 2.5 s waits 2.5 times as long as 1 s."""
    one, other = (Retry(backoff=backoff).wait(2, np.random.default_rng(7)) for backoff in (1.0, 2.5))
    assert other == pytest.approx(2.5 * one)


@pytest.mark.parametrize("retry", [{"attempts": 0}, {"timeout": "0s"}, {"timeout": 3}, {"tries": 3}])
def test_a_scenario_cannot_ask_for_no_try_or_no_timeout(retry: dict[str, object]) -> None:
    """One try is the least; 0 s would fail every call; 3 has no unit; the key is called attempts."""
    with pytest.raises(ValidationError):
        TypeAdapter(Retry, config=None).validate_python(retry, extra="forbid")


def test_a_scenario_may_write_durations() -> None:
    """2 tries, 500 ms."""
    assert TypeAdapter(Retry).validate_python({"attempts": 2, "timeout": "500ms"}) == Retry(attempts=2, timeout=0.5)
