"""A client at its desk: what it remembers, how long it takes, and what it does when it is told to stop."""

import math

import pytest
import torch

from fedemu.clock import VirtualClock, run
from fedemu.devices._base import Energy, Equipment, Memory, Straggler
from fedemu.devices.lognormal import lognormal
from fedemu.errors import PeerError
from fedemu.links._base import Retry
from fedemu.links.drop import drop
from fedemu.net._pb import federation_pb2 as pb
from fedemu.types import Trained


def counting(job):
    """Remember how many updates were accepted; round 2's delta is what a test says."""
    seen = job.state.get("seen", torch.zeros(1))
    return Trained(torch.ones(3), 1, 1, 0.5), {"seen": seen + 1}


def remembered(played, client="c/0"):
    return [job.state["seen"].item() if job.state else 0 for job in played.jobs if job.client == client]


def last(idle, count, rng):
    return [view.client for view in idle[::-1][:count]]


@pytest.mark.parametrize("delay", [0.0, 0.1])
def test_memory_is_kept_from_round_to_round(toy, delay):
    """Three accepted updates: 0, 1, 2 before each. The answer and the next task arrive at the same moment."""
    link = {"up": toy.way(delay=delay), "down": toy.way(delay=delay)}
    played = toy.play({"c/0": toy.Client(train=counting, **link)}, stop={"rounds": 3})
    assert remembered(played) == [0, 1, 2]
    assert not played.of("UpdateLost")


@pytest.mark.parametrize("takes", [(2.0, 4.0, 2.0), (2.0, 2.9, 2.0)], ids=["cancelled", "late"])
def test_an_update_that_comes_late_leaves_no_memory(toy, takes):
    """Round 2 closes at 3 s without it, in training (4 s) or on its way (2.9 + 0.5 s): round 3 still remembers 1."""
    clients = {"c/0": toy.Client(train=counting, takes=takes, up=toy.way(delay=0.5)), "c/1": toy.Client()}
    played = toy.play(clients, policy={"deadline": 3.0}, stop={"rounds": 3})
    assert remembered(played) == [0, 1, 1]
    assert played.the("UpdateLost").round == 2


def test_an_update_that_is_refused_leaves_no_memory(toy):
    """Round 2's delta is not a number."""

    def train(job):
        trained, state = counting(job)
        return (trained._replace(delta=trained.delta * math.nan) if job.round == 2 else trained), state

    played = toy.play({"c/0": toy.Client(train=train), "c/1": toy.Client()}, stop={"rounds": 3})
    assert remembered(played) == [0, 1, 1]
    assert played.the("UpdateRejected").round == 2


def test_an_update_whose_answers_are_lost_is_remembered_when_the_next_task_tells(toy):
    """The server took it and says so twice, in vain; the client gives up and hears of it with round 2's task."""
    lossy = toy.way(after=[("drop", drop(response=1.0))])
    client = toy.Client(train=counting, down=lossy, retry=Retry(attempts=2, timeout=0.25, backoff=0.125))
    clients = {"c/0": client, "c/1": toy.Client(takes=(5.0,))}
    played = toy.play(clients, stop={"rounds": 2})
    assert remembered(played) == [0, 1]
    assert len(played.of("UpdateSent", client="c/0", round=1)) == 2
    assert len(played.of("UpdateReceived", client="c/0")) == 2  # one a round


@pytest.mark.parametrize("every", [None, 1])
def test_memory_is_kept_where_updates_wait_for_their_answer(toy, every):
    """Three arrive at once and each makes a model; who waits while one is evaluated gets no task in between."""
    clients = {f"c/{i}": toy.Client(train=counting) for i in range(3)}
    policy = {"goal": 1, "barrier": False, "late": "keep"}
    played = toy.play(clients, policy=policy, stop={"rounds": 9}, every=every, select=last)
    for client in clients:
        assert remembered(played, client) == list(range(len(remembered(played, client))))


@pytest.mark.parametrize("drops", [drop(response=0.3), drop(request=0.3), drop(request=0.2, response=0.2)])
def test_memory_counts_the_updates_that_the_server_took_whatever_is_lost(toy, drops):
    """Before each training a client remembers exactly as many updates as the server has accepted from it."""
    lossy = {way: toy.way(after=[("drop", drops)]) for way in ("up", "down")}
    client = toy.Client(train=counting, **lossy, retry=Retry(attempts=2, timeout=0.25, backoff=0.125))
    played = toy.play({"c/0": client, "c/1": toy.Client(takes=(5.0,))}, stop={"rounds": 60})
    accepted = [e.round for e in played.of("UpdateReceived", client="c/0")]  # no round closes before they are there
    trained = [job.round for job in played.jobs if job.client == "c/0"]
    assert remembered(played) == [sum(round < now for round in accepted) for now in trained]
    assert 10 < len(accepted) < 60


def test_training_takes_its_device_time_anew_each_round_or_once_and_for_all(toy):
    """A lognormal device: `round` draws three times, `client` once, and two clients draw each for itself."""
    for draw, different in [("round", 3), ("client", 1)]:
        device = lognormal(per_example=1.0, sigma=0.5, draw=draw)
        clients = {"c/0": toy.Client(takes=device), "c/1": toy.Client(takes=device)}
        played = toy.play(clients, stop={"rounds": 3})
        durations = [[e.duration for e in played.of("TrainingFinished", client=c)] for c in clients]
        assert [len({round(d, 6) for d in ds}) for ds in durations] == [different, different]
        assert durations[0][0] != durations[1][0]


def test_a_task_that_comes_twice_is_trained_once(toy):
    """The receipt is lost, so that the task comes again after 0.5 s and its wait; training takes 5 s."""
    up = toy.way(after=[("lost", lambda packet, _: None if packet.role == "response" else packet)])
    client = toy.Client(takes=(5.0,), up=up, retry=Retry(attempts=3, timeout=0.5, backoff=0.5))
    played = toy.play({"c/0": client, "c/1": toy.Client()})
    assert len(played.of("TaskSent", client="c/0")) == 3
    assert len(played.of("TaskReceived", client="c/0")) == 1
    assert [job.client for job in played.jobs].count("c/0") == 1


def test_a_goodbye_ends_training_and_the_client_leaves(toy):
    """The run is over at 2.5 s, in mid-training; the client hears of it at 2.75 s, the server of that at 3 s."""
    client = toy.Client(takes=(1.0, 9.0), up=toy.way(delay=0.25), down=toy.way(delay=0.25))
    played = toy.play({"c/0": client}, stop={"time": 2.5})
    assert played.ends == {"c/0": None}
    assert played.the("UpdateLost").at == 3.0
    left = played.the("ClientLeft")
    assert (left.at, left.reason) == (3.0, "the run is over")


class Line:
    """A connection to a client on which all messages lie ready."""

    def __init__(self, *messages):
        self.coming, self.posted = list(messages), []

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        pass

    async def receive(self):
        return self.coming.pop(0), 0.0

    def post(self, message):
        self.posted.append(message.header)

    def announce(self, message):
        assert message.header == pb.Ready()

    async def drain(self):
        pass


def test_a_cancel_before_training_has_begun_is_answered(toy):
    """Task, cancel and goodbye lie ready: nothing is trained, and the server is told that nothing will come."""
    pb, name = toy.pb, toy.pb.Assignment(round=1, turn=1, attempt=1)
    task = toy.Message(pb.Task(assignment=name), {"model": torch.zeros(3)})
    line = Line(task, toy.Message(pb.Cancel(assignment=name)), toy.Message(pb.Goodbye()))

    async def main():
        federation = toy.Federation({"c/0": toy.Client()}, VirtualClock())
        await federation.participant("c/0").run(line)
        return federation

    federation = run(main(), virtual=True)
    assert line.posted == [pb.Receipt(assignment=name), pb.Abandoned(assignment=name, reason="cancelled")]
    assert not federation.jobs


def test_a_cancel_for_a_task_that_never_came_is_answered(toy):
    """The task was lost on its way: the cancel alone arrives."""
    pb, name = toy.pb, toy.pb.Assignment(round=3, turn=1, attempt=1)
    line = Line(toy.Message(pb.Cancel(assignment=name)), toy.Message(pb.Goodbye()))

    async def main():
        await toy.Federation({"c/0": toy.Client()}, VirtualClock()).participant("c/0").run(line)

    run(main(), virtual=True)
    assert line.posted == [pb.Abandoned(assignment=name, reason="cancelled")]


def test_what_only_a_server_may_get_ends_the_connection(toy):
    """A Hello to a client that has joined."""
    line = Line(toy.Message(toy.pb.Hello()))

    async def main():
        await toy.Federation({"c/0": toy.Client()}, VirtualClock()).participant("c/0").run(line)

    with pytest.raises(PeerError, match="Hello with no vectors to a client that has joined"):
        run(main(), virtual=True)


def test_a_task_without_a_model_ends_the_connection(toy):
    """Its vectors are named, so that whoever wrote the server sees what is wrong."""
    line = Line(toy.Message(toy.pb.Task(version=1), {"modl": torch.zeros(3)}))

    async def main():
        await toy.Federation({"c/0": toy.Client()}, VirtualClock()).participant("c/0").run(line)

    with pytest.raises(PeerError, match="Task with modl to a client that has joined"):
        run(main(), virtual=True)


def test_a_cancel_while_the_answer_is_under_way_changes_nothing(toy):
    """The update arrives at 2.5 s, half a second before the close; its answer is 1 s on the way."""
    client = toy.Client(train=counting, takes=(0.5,), up=toy.way(delay=1.0), down=toy.way(delay=1.0))
    played = toy.play({"c/0": client, "c/1": toy.Client(takes=(9.0,))}, policy={"deadline": 3.0}, stop={"rounds": 2})
    assert remembered(played) == [0, 1]
    assert [e.client for e in played.of("UpdateLost")] == ["c/1", "c/1"]


def test_a_cancel_after_all_is_done_changes_nothing(toy):
    """By hand: the cancel of a round that was answered is answered, and the next round goes its way."""
    out = []

    async def server(federation, rejoin):
        await federation.clock.sleep_until(1.5)
        session = federation.server._sessions["c/0"]
        session.channel.post(toy.Message(toy.pb.Cancel(assignment=toy.pb.Assignment(round=1, turn=1, attempt=1))))
        out.append(federation.clock.now())

    clients = {"c/0": toy.Client(train=counting), "c/1": toy.Client(takes=(2.0,))}
    played = toy.play(clients, stop={"rounds": 2}, meanwhile=server)
    assert out == [1.5]
    assert remembered(played) == [0, 1]
    assert not played.of("UpdateLost")


def test_a_device_that_cannot_hold_the_model_says_so_and_stays(toy):
    """Training needs 12 bytes: of 11 it is an event and a lost update in each round, of 12 it is trained."""
    clients = {f"c/{size - 11}": toy.Client(equipment=Equipment(memory=Memory(size))) for size in (11, 12)}
    played = toy.play(clients, stop={"rounds": 2})
    told = [(e.at, e.client, e.round, e.needed, e.memory) for e in played.of("MemoryExceeded")]
    assert told == [(0.0, "c/0", 1, 12, 11), (1.0, "c/0", 2, 12, 11)]
    lost = [(e.at, e.client, e.round, e.reason) for e in played.of("UpdateLost")]
    assert lost == [(0.0, "c/0", 1, "out of memory"), (1.0, "c/0", 2, "out of memory")]
    assert [job.client for job in played.jobs] == ["c/1", "c/1"]
    assert played.of("ClientLeft", client="c/0")[0].reason == "the run is over"


def test_a_run_in_which_no_device_holds_the_model_ends(toy):
    """On ideal links, where that takes no time: a round that failed is tried again 1 s after it began."""
    small = {f"c/{slot}": toy.Client(equipment=Equipment(memory=Memory(11))) for slot in range(2)}
    assert toy.play(small, stop={"rounds": 3}).at("RoundFailed") == [0.0, 1.0, 2.0]
    played = toy.play(small, stop={"time": 2.5})
    assert played.at("RoundFailed") == [0.0, 1.0, 2.0]
    assert (played.reason, played.end) == ("time", 2.5)


def test_energy_of_training_is_power_times_seconds(toy):
    """2 W for 3 s and for 1.5 s; a training that is cut off tells nothing, as it has no TrainingFinished either."""
    client = toy.Client(takes=(3.0, 1.5, 9.0), equipment=Equipment(energy=Energy(compute=2.0)))
    played = toy.play({"c/0": client}, stop={"time": 6.0})
    assert [(e.at, e.phase, e.joules) for e in played.of("EnergySpent")] == [
        (3.0, "compute", 6.0),
        (4.5, "compute", 3.0),
    ]


def test_a_straggler_takes_so_many_times_as_long(toy):
    """Always: 3 times 2 s; never: 2 s."""
    for probability, took in ((1.0, 6.0), (0.0, 2.0)):
        client = toy.Client(takes=(2.0,), equipment=Equipment(straggler=Straggler(probability, 3.0)))
        assert [e.duration for e in toy.play({"c/0": client}).of("TrainingFinished")] == [took]


# --- time for a training


@pytest.mark.parametrize(
    ("takes", "epochs", "budget", "expected"),
    [
        (20.0, 20, 7.5, (7, 7.0)),
        (20.0, 20, 7.0, (7, 7.0)),
        (20.0, 20, 20.0, (20, 20.0)),
        (20.0, 20, 0.3, (1, 1.0)),
        (6.0, 1, 2.0, (1, 6.0)),
    ],
    ids=["half an epoch too much", "just enough", "all of it", "too little for one", "one of one"],
)
def test_a_client_does_the_whole_epochs_that_its_time_allows_and_at_least_one(toy, takes, epochs, budget, expected):
    """20 s for 20 epochs is 1 s each; the first is done however long it takes."""
    client = toy.Client(takes=(takes,), epochs=lambda _: epochs, budget=budget)
    played = toy.play({"c/0": client})
    assert ([job.epochs for job in played.jobs], played.the("TrainingFinished").duration) == (
        [expected[0]],
        expected[1],
    )


def test_a_straggler_has_time_for_fewer_epochs(toy):
    """At a third of its speed an epoch takes 3 s: 2 of them in 7.5 s."""
    slow = Equipment(straggler=Straggler(1.0, 3.0))
    played = toy.play({"c/0": toy.Client(takes=(20.0,), epochs=lambda _: 20, budget=7.5, equipment=slow)})
    assert (played.jobs[0].epochs, played.the("TrainingFinished").duration) == (2, 6.0)


def test_what_a_client_trains_may_differ_from_round_to_round(toy):
    """3, 2 and 1 epochs are asked for, and done where there is no budget."""
    played = toy.play({"c/0": toy.Client(epochs=lambda number: 4 - number)}, stop={"rounds": 3})
    assert [job.epochs for job in played.jobs] == [3, 2, 1]
