"""TCP with loss, round trip by round trip: a window that grows, meets its losses, and mends them.

In each round the window's segments leave and the link says how many of them it loses. None: the window grows. Some: it
shrinks, once for all that leave within RTT of the first lost one, and they are sent again among the next round's; what
leaves before the loss is known leaves at the old window. Recovery is Linux's, RACK-TLP (RFC 8985):

- a loss that later segments outrun is known after RTT; where fewer than three do, RTT/4 later;
- a lost tail, with nothing after it, is probed 2 RTT after its last acknowledgement, a whole lost flight 2 RTT after it
  left, by one segment whose acknowledgement tells of the others;
- a probe that is lost too, a flight of one segment, or a tail lost in recovery wait for the timeout, 200 ms + RTT and
  twice as long each next time, which leaves a window of one.

A window beyond what the path holds and its queue (`limit`) loses what is over. Where neither loses it is `slow_start`.
Means of 300 messages are within 9.4 % (typical) and 27 % (worst) of Linux CUBIC at 0.1 to 3 % loss (`make fidelity`).
Not in it: HyStart, delayed acknowledgements, spurious retransmissions, reordering.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fedemu.links._base import Burst, Sending, Tcp
from fedemu.links.tcp._congestion import Control, Cubic, Reno
from fedemu.links.tcp._segments import FULL, HEADERS, MSS, count, restarted, timeout, wire
from fedemu.types import Rng, Seconds
from fedemu.units import Count

LONGEST = 2000
"""Rounds of a message that are gone through one by one; what is left then goes at the mean rate of their later half."""
_PIECES = 100


def rounds(
    *,
    iw: Count = 10,
    cc: Control = "cubic",
    memory: bool = True,
    limit: Count = 64,
) -> Tcp:
    """Go through a transfer round trip by round trip, with the link's losses.

    Args:
        iw: Initial window in segments (RFC 6928: 10).
        cc: Congestion control, RFC 9438 or RFC 5681.
        memory: Go on with the window that the connection's last message left, as far as idle time leaves it.
        limit: Segments that the bottleneck's queue holds.
    """
    return Tcp(Connection(iw, cc, memory, limit), takes_loss=True)


@dataclass(slots=True)
class Connection:
    """One direction of a connection that remembers its window and threshold."""

    iw: int
    cc: Control
    memory: bool
    limit: int
    congestion: Reno | Cubic | None = None
    """None before the first message."""

    def __call__(self, sending: Sending, draw: Callable[[], Rng]) -> Sequence[Burst]:
        """Cut a message into bursts, with what is lost and when it is sent again."""
        if self.congestion is None or not self.memory or sending.idle == math.inf:
            self.congestion = Cubic(float(self.iw)) if self.cc == "cubic" else Reno(float(self.iw))
        elif sending.idle > timeout(sending.rtt):
            before = self.congestion.window
            self.congestion.threshold = max(self.congestion.threshold, before * 3 / 4)
            self.congestion.window = float(restarted(int(before), self.iw, sending.idle, sending.rtt))
        return Flight(sending, self.congestion, self.limit).bursts(draw)


@dataclass(frozen=True, slots=True)
class Wait:
    """What the sender does about the losses of a round, and when."""

    turnaround: Seconds
    """After the round began."""
    cap: int | None = None
    """How many segments it sends at most then."""
    timed_out: bool = False


@dataclass(slots=True)
class Flight:
    """One message on its way."""

    sending: Sending
    congestion: Reno | Cubic
    limit: int
    fresh: int = field(init=False)
    """Segments that were never sent."""
    left: int = field(init=False)
    """Their bytes on the wire."""
    again: int = 0
    """Lost segments that are to be sent again."""
    timeouts: int = 0
    """In a row."""
    known: float = 0.0
    """Share of a round that leaves before the loss of the round before is known."""
    shrunk: float = 0.0
    """By how much the window shrank for that loss."""

    def __post_init__(self) -> None:
        self.fresh, self.left = count(self.sending.size), wire(self.sending.size)

    def bursts(self, draw: Callable[[], Rng]) -> Sequence[Burst]:
        """Return all its rounds."""
        sending, congestion = self.sending, self.congestion
        served = 8 * FULL / sending.rate
        room = self.limit + sending.rtt / served if served else math.inf
        result, ends, arrived = list[Burst](), [0.0], [0]
        rng: Rng | None = None
        cap: int | None = None
        while self.fresh + self.again:
            if len(result) == LONGEST:
                return (*result, *self._at_the_mean_rate(ends, arrived))
            sent = min(self.fresh + self.again, max(1, int(congestion.window + self.shrunk * self.known)))
            sent = sent if cap is None else min(sent, cap)
            cap = None
            resent = min(self.again, sent)
            over = math.ceil(sent - room) if sent > room else 0
            lost = sending.lost(sent - over, sending.at + ends[-1]) if sending.lost else 0
            turnaround = sending.rtt + served
            if not ends[-1]:  # the first segment is shorter by its missing payload, and so acknowledged earlier
                turnaround -= 8 * MSS / sending.rate
            # what the queue refuses does not cross the path
            size = max(HEADERS, resent * FULL + self._leave(sent - resent) - over * FULL)
            self.again += lost + over - resent
            if lost + over:
                rng = rng or draw()
                wait = self._recover(sent, resent, lost + over, served, rng)
                turnaround, cap = max(turnaround, wait.turnaround), wait.cap
                if wait.timed_out:
                    congestion.timed_out()
                    self.known = 0.0
                else:
                    self._shrink(sent, resent, lost, over, room, rng)
            else:
                self.timeouts, self.known = 0, 0.0
                if not resent or congestion.window < congestion.threshold:  # a recovery must end before it grows
                    congestion.acknowledged(sent, max(turnaround, sent * served))
            result.append(Burst(size, turnaround, lost + over))
            ends.append(ends[-1] + max(turnaround, 8 * size / sending.rate))
            arrived.append(arrived[-1] + sent - lost - over)
        result[-1] = result[-1]._replace(turnaround=0.0)
        return tuple(result)

    def _leave(self, fresh: int) -> int:
        """Return the bytes of the next so many fresh segments, and count them off."""
        first = self.fresh == count(self.sending.size)
        size = self.left if fresh == self.fresh else fresh * FULL - (MSS if first and fresh else 0)
        self.fresh -= fresh
        self.left -= size
        return size

    def _shrink(self, sent: int, resent: int, lost: int, over: int, room: float, rng: Rng) -> None:
        """Shrink the window for losses that are news: of fresh segments, sent since the last loss was known."""
        congestion = self.congestion
        news = lost - int(rng.hypergeometric(resent, sent - resent, min(lost, sent)))
        news = int(rng.binomial(news, 1 - self.known)) + over
        self.known = 0.0
        if not news:
            return
        place = 1 - float(rng.random()) ** (1 / news)  # of the first one
        if congestion.window < congestion.threshold:  # what came before it has let the window grow
            congestion.window += int(sent * place)
        before = congestion.window
        congestion.lost()
        if over:
            congestion.window = min(congestion.window, max(2.0, room))
        else:
            self.known, self.shrunk = place, before - congestion.window

    def _recover(self, sent: int, resent: int, lost: int, served: Seconds, rng: Rng) -> Wait:
        rtt = self.sending.rtt
        position, coincidence = map(float, rng.random(2))
        if lost == sent:
            return Wait(2 * rtt, cap=1) if sent > 1 and not resent else self._time_out()
        self.timeouts = 0
        if self.fresh + self.again > lost:  # more is sent meanwhile, and tells of the loss
            return Wait(rtt)
        # nothing is: the place of the last one that was lost tells when and how that shows
        after = sent - max(lost, math.ceil(sent * position ** (1 / lost)))
        known = rtt + (sent - after) * served
        if after:
            return Wait(known + (3 * served if after >= 3 else rtt / 4))
        if coincidence * math.comb(sent - 1, lost - 1) >= 1:
            return Wait(known, cap=lost - 1)  # the tail shows when the others have been sent again
        return self._time_out() if resent else Wait(3 * rtt + (sent - lost) * served, cap=1)

    def _time_out(self) -> Wait:
        self.timeouts += 1
        return Wait(timeout(self.sending.rtt) * 2 ** min(self.timeouts - 1, 6), timed_out=True)

    def _at_the_mean_rate(self, ends: Sequence[Seconds], arrived: Sequence[int]) -> Sequence[Burst]:
        half = len(ends) // 2
        per_segment = (ends[-1] - ends[half]) / max(1, arrived[-1] - arrived[half])
        left = self.fresh + self.again
        self.fresh = self.again = 0
        parts = (left * (i + 1) // _PIECES - left * i // _PIECES for i in range(_PIECES))
        return (*(Burst(part * FULL, part * per_segment) for part in parts if part), Burst(0, 0.0))
