"""SimGrid's model LV08, for comparison: a message takes 13.01 latencies, and its size over 97 % of the bandwidth.

Velho and Legrand, Accuracy study and improvement of network simulation in the SimGrid framework, SIMUTools 2009:
latency x 13.01 stands for slow start, bandwidth x 0.97 for headers; with SimGrid's cross traffic, whose
acknowledgements take 5 % of the rate on a path that goes both ways. Without its cap of 4 MiB a round trip, or loss.
"""

from collections.abc import Callable, Sequence

from fedemu.links._base import Burst, Sending, Tcp
from fedemu.types import Rng

LATENCY = 13.01
BANDWIDTH = 0.97
CROSS_TRAFFIC = 1.05


def lv08() -> Tcp:
    """Take SimGrid's time: 13.01 RTT / 2 + 8 S 1.05 / (0.97 R), of which half an RTT is the link's own delay."""
    return Tcp(_bursts)


def _bursts(sending: Sending, _: Callable[[], Rng]) -> Sequence[Burst]:
    size = sending.size * CROSS_TRAFFIC / BANDWIDTH
    rest = size - int(size)  # a burst has whole bytes
    return Burst(0, (LATENCY - 1) * sending.rtt / 2 + 8 * rest / sending.rate), Burst(int(size), 0.0)
