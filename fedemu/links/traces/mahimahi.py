"""Mahimahi's traces: a millisecond a line, each an opportunity for one packet of 1500 bytes.

Netravali et al., Mahimahi, USENIX ATC 2015; the cellular ones are Winstein, Sivaraman and Balakrishnan's (Stochastic
Forecasts Achieve High Throughput and Low Delay over Cellular Networks, NSDI 2013).
"""

from fedemu.links._trace import Trace
from fedemu.links.traces import _file


def mahimahi(path: str) -> Trace:
    """Read milliseconds in order, repeated where several packets cross within one.

    Raises:
        ValueError: a line is no whole millisecond or before the last one, or there is nothing but 0.
    """
    stamps: list[int] = []
    for line, word in enumerate(_file.text(path).splitlines(), 1):
        if not word.strip():
            continue
        if not word.strip().isdecimal():
            raise ValueError(f"{path}:{line}: {word.strip()!r} is not a millisecond")
        stamp = int(word)
        if stamps and stamp < stamps[-1]:
            raise ValueError(f"{path}:{line}: {stamp} comes after {stamps[-1]}; expected milliseconds in order")
        stamps.append(stamp)
    try:
        return Trace.of_stamps(stamps)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
