"""Devices by name: the model's arithmetic over the device's measured speed.

The speeds are those of High-Performance Linpack (HPL: dense linear algebra in float64 on all cores), a stand-in for
training speed and not a measurement of it: training is float32, and small layers keep a processor less busy than one
large matrix does. Trust the ratios between devices before the times; whoever has measured a time per example writes
`constant` instead. Every board's speed is from the results table of https://github.com/geerlingguy/top500-benchmark
(read at commit 0137a2e), which names an issue for each. It has no Raspberry Pi 3 and no Jetson, so neither is here.

Phones have no Linpack table. Their tiers are the median CPU float score of the lower, middle and upper third of the
333 phones in the AI Benchmark list of 2020 (Ignatov et al., AI Benchmark: All About Deep Learning on Smartphones in
2019), as it comes with FLASH (Yang et al., Characterizing Impacts of Heterogeneity in Federated Learning upon
Large-Scale Smartphone Data, WWW 2021). Their place beside the boards is an estimate by one pair: the median Snapdragon
855 (3212 points) is set equal to a Raspberry Pi 5, as both have four Cortex-A76 of 2.4 GHz and more. Scores understate
how far phones are apart in training: FLASH has 588 ms and 179 ms a batch of one CNN for its middle and its fast phone,
3.3 times, where the phones that they stand for (Redmi Note 7 Pro, Pixel 4) have 2057 and 3212 points, 1.6 times.
"""

from types import MappingProxyType
from typing import Literal

from fedemu.devices._base import Device

SPEEDS = MappingProxyType(
    {
        "raspberry-pi-5": 30.249e9,  # BCM2712 at 2.4 GHz, issue 18
        "raspberry-pi-4": 11.889e9,  # BCM2711 at 1.8 GHz, issue 13
        "raspberry-pi-cm4": 11.433e9,  # BCM2711 at 1.5 GHz, issue 33
        "raspberry-pi-zero-2w": 0.370e9,  # RP3A0-AU at 1.0 GHz, issue 26
        "phone-high": 2997 / 3212 * 30.249e9,  # upper third, e.g. Xiaomi Mi 9 (Snapdragon 855), 2019
        "phone-mid": 1548 / 3212 * 30.249e9,  # middle third, e.g. Wiko View3 Pro (Helio P60), 2019
        "phone-low": 344 / 3212 * 30.249e9,  # lower third, e.g. Alcatel Tetra (MT6739), 2018
    }
)
"""Floating-point operations per second."""


def profile(
    *,
    name: Literal[
        "raspberry-pi-5",
        "raspberry-pi-4",
        "raspberry-pi-cm4",
        "raspberry-pi-zero-2w",
        "phone-high",
        "phone-mid",
        "phone-low",
    ],
) -> Device:
    """Take the time of a known device, by its Linpack speed: examples * epochs * arithmetic / speed.

    Args:
        name: The device.
    """
    speed = SPEEDS[name]
    return Device(lambda work, _: work.examples * work.epochs * work.arithmetic() / speed)
