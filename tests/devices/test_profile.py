"""Profiles divide the model's arithmetic by a device's speed."""

import json
import os
from pathlib import Path
from statistics import median
from typing import get_args, get_type_hints

import numpy as np
import pytest

from fedemu.devices._base import Work
from fedemu.devices.profile import SPEEDS, profile


def test_time_is_arithmetic_over_speed() -> None:
    """1000 examples, 2 epochs, 11.889 MFLOP each at 11.889 Gflop/s = 2 s on a Raspberry Pi 4."""
    device = profile(name="raspberry-pi-4")
    assert device.training_time(Work(1000, 2, lambda: 11.889e6), np.random.default_rng(1)) == pytest.approx(
        2.0, rel=1e-15
    )


def test_a_zero_is_82_times_slower_than_a_5() -> None:
    """30.249 / 0.370 = 81.75: both figures stand in the published table."""
    work, rng = Work(10, 1, lambda: 1e6), np.random.default_rng(1)
    slow, fast = (profile(name=n).training_time(work, rng) for n in ("raspberry-pi-zero-2w", "raspberry-pi-5"))
    assert slow / fast == pytest.approx(81.754, rel=1e-4)


def test_the_names_a_scenario_may_use_are_those_of_the_table() -> None:
    """The annotation is what the schema shows, the table is what runs."""
    assert set(get_args(get_type_hints(profile)["name"])) == set(SPEEDS)


def test_the_phone_tiers_are_the_list_s_thirds() -> None:
    """Medians of 111 phones each, over the median Snapdragon 855's score, times a Raspberry Pi 5."""
    file = Path(os.environ.get("FEDEMU_DATA", "/nowhere")) / "traces/devices_flash/raw_ai_benchmark_list.json"
    if not file.exists():
        pytest.skip("FEDEMU_DATA has no traces/devices_flash/raw_ai_benchmark_list.json")
    phones = json.loads(file.read_text())
    scores = sorted(float(phone["CPU_F_AI_Score"]) for phone in phones)
    unit = SPEEDS["raspberry-pi-5"] / median(
        float(phone["CPU_F_AI_Score"]) for phone in phones if phone["CPU"] == "Snapdragon 855"
    )
    for third, tier in enumerate(("phone-low", "phone-mid", "phone-high")):
        assert SPEEDS[tier] == pytest.approx(median(scores[111 * third : 111 * (third + 1)]) * unit)
