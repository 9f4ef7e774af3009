"""TCP with loss in the mean, without a draw: Cardwell's latency model, with CUBIC's response.

Cardwell, Savage and Anderson, Modeling TCP latency (INFOCOM 2000): of d segments at loss p

    d_ss = (1 - (1 - p)^d) (1 - p) / p + 1     leave in slow start, as `slow_start` has it
    1 - (1 - p)^d                              have a loss that ends it: RTT to recover, or by chance 3/W a timeout
    the rest, sent 1 / (1 - p) times           leaves at W / RTT with its timeouts, or at the path's rate if lower

where W is the mean window at p: RFC 9438's for CUBIC, Mathis's for Reno. It knows the share of lost segments and not
how they hang together, and gives every message its mean: no spread. A fresh connection each time.
"""

import math
from collections.abc import Callable, Sequence

from fedemu.links._base import Burst, Sending, Tcp
from fedemu.links.tcp._congestion import Control, response
from fedemu.links.tcp._segments import FULL, MSS, count, timeout
from fedemu.links.tcp.slow_start import windows
from fedemu.types import Rng, Seconds
from fedemu.units import Count

_PIECES = 100


def mean(*, iw: Count = 10, cc: Control = "cubic") -> Tcp:
    """Take the mean time at the link's loss.

    Args:
        iw: Initial window in segments (RFC 6928: 10).
        cc: Congestion control, which sets the mean window.
    """

    def bursts(sending: Sending, _: Callable[[], Rng]) -> Sequence[Burst]:
        if sending.loss == 0:
            return windows(sending.size, sending.rate, sending.rtt, iw)
        return _with_loss(sending, sending.loss, iw, cc)

    return Tcp(bursts, takes_loss=True)


def _with_loss(sending: Sending, loss: float, iw: int, control: Control) -> Sequence[Burst]:
    segments, rtt = count(sending.size), sending.rtt
    served = 8 * FULL / sending.rate
    hit = 1 - (1 - loss) ** segments
    slow = min(segments, math.ceil(hit * (1 - loss) / loss + 1))
    first = windows(min(sending.size, (slow - 1) * MSS), sending.rate, rtt, iw)
    # the window at the end of slow start, and the chance that it is too small for three duplicate acknowledgements
    window = max(2.0, min(max(iw, (slow + iw) / 2), rtt / served if served else math.inf))
    waits = hit * (_stuck(window) * timeout(rtt) / 2 + (1 - _stuck(window) / 2) * rtt)
    left = segments - slow
    if not left:
        return (*first, Burst(0, waits), Burst(0, 0.0))
    window = response(control, loss, rtt)
    per_segment: Seconds = rtt / window + loss * _stuck(window) * timeout(rtt) * (1 + 32 * loss**2) / 2
    per_segment = max(per_segment, served / (1 - loss))
    parts = (left * (i + 1) // _PIECES - left * i // _PIECES for i in range(_PIECES))
    rest = (Burst(round(part * FULL / (1 - loss)), part * per_segment) for part in parts if part)
    return (*first, Burst(0, waits), *rest, Burst(0, 0.0))


def _stuck(window: float) -> float:
    return min(1.0, 3 / window)
