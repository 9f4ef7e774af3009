"""A client's link as its kernel takes it: the `tc` commands that shape a network device, and what they cannot say.

What leaves the device is its egress, the uplink; what comes is sent through an intermediate device (ifb), whose egress
is the downlink. In each, tc-tbf holds the rate and tc-netem, inside it, delays and loses packets: the order in which
tc-tbf cuts the trains of up to 64 kB that a kernel hands around into packets before any is lost. A kernel counts whole
Ethernet frames, 66 bytes of headers on each 1448 of a connection, as the emulated TCP does; and it counts all that
crosses the device, so that acknowledgements of the other direction, handshakes and scrapes take their share.

What differs from the emulated link, in words: jitter is drawn for each packet and lets packets overtake; draws are the
kernel's, and no seed repeats them; TCP is the kernel's own. What would be another link altogether is a fault.
"""

import shlex
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fedemu.errors import Fault, ScenarioError
from fedemu.keys import instead
from fedemu.links.delay import Law
from fedemu.links.loss import Fading, Independent, Markov
from fedemu.scenario import Scenario
from fedemu.scenario.device import EnergyKeys
from fedemu.scenario.link import DIRECTIONS, Direction, Link, Way
from fedemu.scenario.sections import Group
from fedemu.types import Bytes, Seconds

FRAME: Bytes = 1514
"""A full packet with its Ethernet header. A bucket that cannot hold one passes nothing."""
QUEUE: Bytes = 2**25
"""What waits at most in one direction: the largest window that Linux gives a connection (tcp_rmem), so that a queue
loses nothing that the scenario does not lose."""
REST: Seconds = 0.001
"""What a bucket holds where the scenario has none: what a timer that is late by as much would else let slip."""
CUT: Bytes = 1600
"""Bucket of the peak rate, which cuts trains: a packet, and as much as rounding may take of it."""

TBF = "tbf queue discipline (CONFIG_NET_SCH_TBF), which a rate needs"
NETEM = "netem queue discipline (CONFIG_NET_SCH_NETEM), which delay and loss need"
IFB = "ifb device (CONFIG_IFB), which a downlink needs"
INGRESS = "ingress queue discipline (CONFIG_NET_SCH_INGRESS), which a downlink needs"
REDIRECT = "u32 classifier or mirred action (CONFIG_NET_CLS_U32, CONFIG_NET_ACT_MIRRED), which a downlink needs"

_LAWS: dict[Law, tuple[float, tuple[str, ...]]] = {
    "normal": (1.0, ("distribution", "normal")),
    "pareto": (1.0, ("distribution", "pareto")),
    "paretonormal": (1.0, ("distribution", "paretonormal")),
    "uniform": (3**0.5, ()),
}
"""netem's words for a law, and its JITTER in deviations: that of a uniform law is half of its width."""

_UNSAID = {
    "stall": "tc knows packets, not a client's answers",
    "outage": "tc has no time of its own",
    "schedule": "tc has no time of its own",
    "trace": "tc has constant rates; write rate",
    "drop": "tc knows packets, not calls; write loss",
    "reset": "tc knows packets, not connections",
    "stage": "tc runs no code of yours",
    "correlation": "netem's changes the law and hardly correlates",
}
"""Keys that have no word in tc, and why."""


class Command(NamedTuple):
    """A command of tc or ip."""

    words: tuple[str, ...]
    needs: str
    """What the kernel must have for it."""
    undo: tuple[str, ...] | None = None
    """The command that takes it back; None where taking back an earlier one does."""

    def __str__(self) -> str:
        return shlex.join(self.words)


def commands(scenario: Scenario, group: str, device: str, *, file: str = "scenario") -> Sequence[Command]:
    """Return what shapes a device as the link of a group's clients is, in order; none for a link without conditions.

    Args:
        scenario: Who there is.
        group: Of it; its clients have links alike.
        device: The network device of one of them.
        file: Where the scenario stands, for faults.

    Raises:
        ScenarioError: There is no such group, or with everything that tc cannot say of its link.
    """
    if group not in scenario.clients:
        text = f"{group!r} is not a group; {instead(group, scenario.clients)}"
        raise ScenarioError([Fault(file, 1, "clients", text)])
    link = scenario.clients[group].link
    faults = dict.fromkeys(_faults(scenario.clients[group]))
    if faults:
        raise ScenarioError([Fault(file, 1, f"clients.{group}.{key}", f"not with tc: {text}") for key, text in faults])
    return [*_queues(link.way("up"), device), *_redirected(link.way("down"), device)]


def undoing(done: Sequence[Command]) -> Sequence[tuple[str, ...]]:
    """Return the commands that take back others, in order."""
    return [command.undo for command in reversed(done) if command.undo is not None]


def left_out(link: Link) -> Sequence[str]:
    """Say which keys of a link have no meaning where a kernel shapes it."""
    notes = []
    if any("tcp" in keys.model_fields_set for keys in (link, link.up, link.down)):
        notes.append("tcp: not needed, as the kernel's own TCP sends")
    if "retry" in link.model_fields_set:
        notes.append("retry: not needed, as TCP loses no message of a connection that stays")
    return notes


# --- what cannot be said


def _faults(group: Group) -> Iterator[tuple[str, str]]:
    link = group.link
    for key in ("stall", "outage", "schedule"):
        if getattr(link, key):
            yield f"link.{key}", _UNSAID[key]
    for direction in DIRECTIONS:
        for key, text in _way_faults(link.way(direction)):
            yield _place(link, direction, key), text
    energy: EnergyKeys | None = None if group.device is None else group.device.house["energy"]
    if energy is not None:
        for direction in DIRECTIONS:
            if getattr(energy, direction):
                yield f"device.energy.{direction}", "nobody can tell how long a kernel sends or receives"


def _place(link: Link, direction: Direction, key: str) -> str:
    own: Way = getattr(link, direction)
    return f"link.{direction}.{key}" if key in own.model_fields_set else f"link.{key}"


def _way_faults(way: Way) -> Iterator[tuple[str, str]]:
    for key in ("trace", "drop", "reset", "stage", "correlation"):
        if getattr(way, key):
            yield key, _UNSAID[key]
    if way.jitter and _law(way) is None:
        law = way.distribution if isinstance(way.distribution, str) else "table of yours" if way.distribution else ""
        yield (
            "distribution" if law else "jitter",
            f"netem has no {law or 'lognormal'} law; write distribution: {', '.join(_LAWS)}",
        )
    if way.tcp is not None and way.tcp.kind == "none":
        yield "tcp", "the kernel always has one"
    if way.burst is not None and way.burst < FRAME:
        yield "burst", f"a bucket of {way.burst} B never passes a packet of {FRAME} B"
    if way.loss is not None:
        if isinstance(way.loss.build(), Fading):
            yield "loss", "netem's states move with packets; leave clock: time out"
        if way.rate is None:
            yield "loss", "without rate the kernel would lose trains of up to 64 kB as one packet; set rate as well"


def _law(way: Way) -> tuple[float, tuple[str, ...]] | None:
    return _LAWS.get(way.distribution) if isinstance(way.distribution, str) else None


# --- what can


def _queues(way: Way, device: str) -> Iterator[Command]:
    """Yield what makes the egress of a device that direction of a link."""
    add, undo = ("tc", "qdisc", "add", "dev", device), ("tc", "qdisc", "del", "dev", device, "root")
    root, netem = (*add, "root", "handle", "1:"), tuple(_netem(way))
    if way.rate is not None:
        yield Command((*root, "tbf", *_tbf(way, way.rate)), TBF, undo)
        if netem:
            yield Command((*add, "parent", "1:1", "handle", "10:", "netem", *netem), NETEM)
    elif netem:
        yield Command((*root, "netem", *netem), NETEM, undo)


def _redirected(way: Way, device: str) -> Iterator[Command]:
    """Yield what makes the ingress of a device that direction of a link."""
    between = f"ifb-{device}"[:15]  # no name is longer
    queues = [command._replace(undo=None) for command in _queues(way, between)]  # they go with their device
    if not queues:
        return
    yield Command(("ip", "link", "add", "dev", between, "type", "ifb"), IFB, ("ip", "link", "del", "dev", between))
    yield Command(("ip", "link", "set", "dev", between, "up"), IFB)
    yield from queues
    undo = ("tc", "qdisc", "del", "dev", device, "ingress")
    yield Command(("tc", "qdisc", "add", "dev", device, "handle", "ffff:", "ingress"), INGRESS, undo)
    everything = ("protocol", "all", "u32", "match", "u32", "0", "0")
    redirect = ("action", "mirred", "egress", "redirect", "dev", between)
    yield Command(("tc", "filter", "add", "dev", device, "parent", "ffff:", *everything, *redirect), REDIRECT)


def _tbf(way: Way, rate: float) -> Iterator[str]:
    burst = max(2 * FRAME, round(REST * rate / 8)) if way.burst is None else way.burst
    yield from ("rate", _rate(rate), "burst", f"{burst}", "limit", f"{QUEUE}")
    if way.loss is not None:
        yield from ("peakrate", _rate(8 * rate), "mtu", f"{CUT}")


def _netem(way: Way) -> Iterator[str]:
    said = False
    if way.delay:
        said = True
        yield from ("delay", _time(way.delay))
        law = _law(way)
        if way.jitter and law is not None:
            scale, words = law
            yield from (_time(scale * way.jitter), *words)
    process = None if way.loss is None else way.loss.build()
    if isinstance(process, Independent) and process.mean:
        said = True
        yield from ("loss", "random", _share(process.mean))
    elif isinstance(process, Markov):
        said = True
        states = (process.p, process.r, process.bad, process.good)
        yield from ("loss", "gemodel", *map(_share, states))
    if said:
        yield from ("limit", f"{QUEUE // FRAME}")


def _rate(rate: float) -> str:
    return f"{rate:.12g}bit"


def _time(seconds: Seconds) -> str:
    return f"{seconds * 1e3:.9g}ms"


def _share(share: float) -> str:
    return f"{share * 100:.9g}%"
