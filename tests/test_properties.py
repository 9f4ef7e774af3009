"""What is true of every run, however clients, links and rounds are made: the asynchronous paths, on the virtual clock.

Hypothesis makes federations of up to five clients with delays, jitter, rates, losses of requests and answers, stalls,
retries, deadlines, with and without barrier, and with all three ways to treat the late. Truth is taken where things
really happen (what the channels put on the links, what the strategy was given), and compared with what the events say.
"""

import math
from dataclasses import dataclass, field
from unittest.mock import patch

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedemu.events import RoundClosed, RoundFailed, TaskSent, UpdateLost, UpdateReceived, UpdateRejected
from fedemu.links._base import Retry
from fedemu.links.delay import delay
from fedemu.links.drop import drop
from fedemu.links.stall import stall
from fedemu.net.emulated import EmulatedChannel
from fedemu.observers.trips import Trips
from fedemu.strategies.fedavg import fedavg
from fedemu.types import Trained, Training

SECONDS = st.sampled_from([0.0, 0.1, 0.5, 1.0, 2.5])


@st.composite
def ways(draw, toy):
    """One direction of a link: sometimes ideal, sometimes slow, late and lossy at once."""
    before, after = [], []
    if held_up := draw(SECONDS):
        after.append(("delay", delay(delay=held_up, jitter=held_up * draw(st.sampled_from([0.0, 0.5])))))
    if draw(st.booleans()):
        after.append(
            ("drop", drop(request=draw(st.sampled_from([0.0, 0.3])), response=draw(st.sampled_from([0.0, 0.3]))))
        )
    if draw(st.booleans()):
        before.append(("stall", stall(probability=0.5, duration=3.0)))
    rate = draw(st.sampled_from([math.inf, 400.0, 4000.0]))  # a message is about 60 bytes: 1.2 s or 0.12 s
    return toy.way(rate=rate, before=before, after=after)


@st.composite
def federations(draw, toy):
    """Clients by name, and how they are played."""
    clients = {
        f"c/{slot}": toy.Client(
            takes=tuple(draw(st.lists(SECONDS, min_size=1, max_size=3))),
            up=draw(ways(toy)),
            down=draw(ways(toy)),
            retry=draw(st.sampled_from([Retry(1, 1000.0), Retry(3, 2.0, 0.5), Retry(2, 0.3, 0.1)])),
        )
        for slot in range(draw(st.integers(1, 5)))
    }
    concurrency = draw(st.integers(1, len(clients)))
    barrier = draw(st.booleans())
    goal = draw(st.integers(1, concurrency if barrier else concurrency + 2))
    policy = {
        "concurrency": concurrency,
        "goal": goal,
        "quorum": draw(st.integers(1, min(goal, concurrency))),
        "deadline": draw(st.sampled_from([0.7, 3.0, 20.0, float("inf")])),
        "barrier": barrier,
        "late": draw(st.sampled_from(["cancel", "drop", "keep"])),
    }
    return clients, {"policy": policy, "stop": {"rounds": draw(st.integers(1, 5)), "time": 300.0}}


@dataclass
class Truth:
    """What really happened, seen from inside.

    Attributes:
        carried: Bytes that channels put on links, by direction.
        trained: Numbers of the trainings, each of which is its update's delta.
        applied: Those that were averaged, in order.
        made: How many of them went into a global model.
    """

    carried: dict = field(default_factory=lambda: {"up": 0, "down": 0})
    trained: list = field(default_factory=list)
    applied: list = field(default_factory=list)
    made: int = 0

    def strategy(self):
        """FedAvg that notes what it is given."""
        plain = fedavg(Training())

        def add(total, update):
            self.applied.append((update.client, update.delta[0].item()))
            return plain.aggregate.add(total, update)

        def finish(*arguments):
            self.made = len(self.applied)
            return plain.aggregate.finish(*arguments)

        return plain._replace(aggregate=plain.aggregate._replace(add=add, finish=finish))

    def train(self, job):
        """Give each training a number of its own."""
        self.trained.append((job.client, float(len(self.trained) + 1)))
        return Trained(torch.tensor([self.trained[-1][1], 0.0, 0.0]), 1, num_steps=1, train_loss=0.5), job.state

    def sending(self, send):
        """Count what a channel's `send` puts on the link, also when it is cancelled."""

        async def counting(channel, request, meter, *start):
            before = meter.sent
            try:
                await send(channel, request, meter, *start)
            finally:
                self.carried[channel._path.name.rpartition(" ")[2]] += meter.sent - before

        return counting


def play(toy, federation):
    """Return the federation as it was played, and the truth about it."""
    clients, how = federation
    truth = Truth()
    for client in clients.values():
        client.train = truth.train
    with patch.object(EmulatedChannel, "send", truth.sending(EmulatedChannel.send)):
        played = toy.play(clients, strategy=truth.strategy(), **how)  # `check` sees that time never goes back
    return played, truth, how["policy"]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_every_run_keeps_its_books(toy, data):
    """Staleness, updates, concurrency and bytes at once: a run is the expensive part."""
    played, truth, policy = play(toy, data.draw(federations(toy)))
    received = played.of("UpdateReceived")
    assert all(event.staleness >= 0 for event in received)
    no_update_is_applied_twice_or_lost_in_silence(played, truth)
    no_more_clients_are_counted_on_than_allowed(played.events, policy)
    every_byte_is_accounted_for(played, truth)


def no_update_is_applied_twice_or_lost_in_silence(played, truth):
    """What was averaged was trained, once each; what was not has an event that says so, and no round counts it."""
    assert len(set(truth.applied)) == len(truth.applied)
    assert set(truth.applied) <= set(truth.trained)
    unused = len(played.of("UpdateLost", reason="unused"))
    assert sum(event.aggregated for event in played.of("RoundClosed")) == len(truth.applied) - unused
    late = [e for e, after in zip(played.events, played.events[1:], strict=False) if is_late(e, after)]
    assert len(played.of("UpdateReceived")) == len(truth.applied) + len(late)


def is_late(event, after):
    """Return whether the update was received only to be told that it is late."""
    return (
        isinstance(event, UpdateReceived)
        and isinstance(after, UpdateLost)
        and (after.client, after.round, after.reason, after.at) == (event.client, event.round, "late", event.at)
    )


def no_more_clients_are_counted_on_than_allowed(events, policy):
    """At any moment; those that a closed round has given up are not counted on."""
    working: dict[str, int] = {}
    for event in events:
        match event:
            case TaskSent(attempt=1):
                assert event.client not in working, "a client with two tasks"
                working[event.client] = event.round
            case UpdateReceived() | UpdateLost() | UpdateRejected():
                if working.get(event.client) == event.round:
                    del working[event.client]
            case RoundClosed() | RoundFailed() if policy["late"] != "keep":
                working.clear()
            case _:
                pass
        assert len(working) <= policy["concurrency"]


def every_byte_is_accounted_for(played, truth):
    """The events give what the channels put on the links, to the byte; and all but what was used was wasted."""
    trips = Trips()
    for event in played.events:
        trips.follow(event)
    assert {"up": trips.up, "down": trips.down} == truth.carried
    sizes = [[event.bytes for event in played.of(kind)] for kind in ("TaskSent", "UpdateReceived")]
    least, most = (truth.made * sum(extreme(of, default=0) for of in sizes) for extreme in (min, max))
    assert least <= trips.used <= most  # a task of version 0 is two bytes shorter than the others
