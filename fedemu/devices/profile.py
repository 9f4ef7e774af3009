"""Devices by name: the model's arithmetic over the device's measured speed.

The speeds are those of High-Performance Linpack (HPL: dense linear algebra in float64 on all cores), a stand-in for
training speed and not a measurement of it: training is float32, and small layers keep a processor less busy than one
large matrix does. Trust the ratios between devices before the times; whoever has measured a time per example writes
`constant` instead. Every speed is from the results table of https://github.com/geerlingguy/top500-benchmark (read at
commit 0137a2e), which names an issue for each.
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
    }
)
"""Floating-point operations per second."""


def profile(*, name: Literal["raspberry-pi-5", "raspberry-pi-4", "raspberry-pi-cm4", "raspberry-pi-zero-2w"]) -> Device:
    """Take the time of a known device, by its Linpack speed: examples * epochs * arithmetic / speed.

    Args:
        name: The device.
    """
    speed = SPEEDS[name]
    return Device(lambda work, _: work.examples * work.epochs * work.arithmetic() / speed)
