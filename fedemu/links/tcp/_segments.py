"""How a message becomes segments, and how long a window lasts: what the TCP models share.

n = ceil(S/1448) + 1 segments of 66 bytes of headers (Ethernet, IPv4, TCP with timestamps) make S_wire = S + 66 n. The
first segment carries gRPC's headers and no part of the message, as on the wire.
"""

import math

from fedemu.types import Bytes, Seconds

MSS = 1448
"""Bytes of payload in a segment: 1500 less IPv4 (20) and TCP with timestamps (32)."""
HEADERS = 66
"""Bytes around them on the wire: 52 and Ethernet's 14."""
FULL = MSS + HEADERS
"""Bytes of a full segment on the wire."""


def count(size: Bytes) -> int:
    """Return the segments of a message of that size."""
    return -(-size // MSS) + 1


def wire(size: Bytes) -> Bytes:
    """Return the bytes on the wire of a message of that size, each segment sent once."""
    return size + HEADERS * count(size)


def timeout(rtt: Seconds) -> Seconds:
    """Return the retransmission timeout: Linux's, 200 ms (its least variation) beyond the round trip."""
    return rtt + 0.2


def restarted(window: int, iw: int, idle: Seconds, rtt: Seconds) -> int:
    """Return the window after `idle` without a message: halved for every timeout beyond the first, down to `iw`.

    That is Linux's congestion window validation (RFC 2861; `tcp_cwnd_restart`).
    """
    halvings = max(0, math.ceil(min(idle / timeout(rtt), 64)) - 1)
    return max(window >> halvings, min(window, iw))
