"""No TCP: a message of S bytes crosses as S bytes, in one piece and at once."""

from fedemu.links._base import Burst, Tcp


def none() -> Tcp:
    """Send a message in one burst and without headers: 8 S / rate on an idle path."""
    return Tcp(lambda sending, _: (Burst(sending.size, 0.0),))
