"""A WAN between two TUN devices, `near` and `far`, which its lab moves to where they belong.

From near to far packets are lost by chance, queue for a rate, and take their delay; back they only take their delay.
Any line asks how late, in seconds, packets have left at worst since the line before: how far the machine, and not the
WAN, has made what was measured.
"""

import errno
import fcntl
import heapq
import itertools
import math
import os
import random
import select
import struct
import sys
import time
from dataclasses import dataclass, field

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
MTU = 1500


@dataclass(slots=True)
class Direction:
    """One way through the WAN."""

    delay: float
    """Seconds."""
    rate: float = math.inf
    """Bits per second."""
    queue: float = math.inf
    """Bytes of packets that wait or are being sent; what comes on top is dropped."""
    loss: float = 0.0
    """Share of packets, each by itself."""
    rng: random.Random = field(default_factory=lambda: random.Random(1))
    free: float = 0.0
    """When all that is queued has been sent."""

    def leave(self, size: int, now: float) -> float | None:
        """Return when a packet that comes now is at the other end; None if it never is."""
        start = max(now, self.free)
        if self.rng.random() < self.loss or start - now > 8 * (self.queue - size) / self.rate:
            return None
        self.free = start + 8 * size / self.rate
        return self.free + self.delay


def tun(name: str) -> int:
    """Make a TUN device, and return its descriptor: one packet a read, one a write."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return device


def arrive(device: int, packet: bytes) -> None:
    """Hand a packet to an end; one that is not up yet takes nothing."""
    try:
        os.write(device, packet)
    except OSError as error:
        if error.errno != errno.EIO:
            raise


def main(rate: str, delay: str, queue: str, loss: str) -> None:
    """Carry packets until the input ends."""
    near, far = tun("near"), tun("far")
    there = Direction(float(delay), float(rate), float(queue), float(loss))
    back = Direction(float(delay))
    ways = {near: (there, far), far: (back, near)}
    due: list[tuple[float, int, int, bytes]] = []
    numbers = itertools.count()
    late = 0.0
    print("ready", flush=True)
    while True:
        wait = max(0.0, due[0][0] - time.monotonic()) if due else None
        readable, _, _ = select.select([near, far, sys.stdin], [], [], wait)
        while due and due[0][0] <= (now := time.monotonic()):
            at, _, device, packet = heapq.heappop(due)
            arrive(device, packet)
            late = max(late, now - at)
        for device, (way, other) in ways.items():
            if device in readable:
                packet = os.read(device, MTU)
                at_other_end = way.leave(len(packet), time.monotonic())
                if at_other_end is not None:
                    heapq.heappush(due, (at_other_end, next(numbers), other, packet))
        if sys.stdin in readable:
            if not sys.stdin.readline():
                return
            print(late, flush=True)
            late = 0.0


if __name__ == "__main__":
    main(*sys.argv[1:])
