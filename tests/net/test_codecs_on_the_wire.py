"""Encoded vectors between a client and its server: their bytes, whose model is whose, and what neither may say."""

from contextlib import suppress

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedemu.clock import RealClock
from fedemu.codecs._base import Coding
from fedemu.codecs.bf16 import bf16
from fedemu.codecs.int8 import int8
from fedemu.codecs.none import none
from fedemu.codecs.topk import topk
from fedemu.errors import NetworkError, PeerError
from fedemu.links._base import Retry
from fedemu.net.channel import Conversation
from fedemu.net.grpc import GrpcTransport
from fedemu.net.memory import MemoryTransport
from fedemu.net.messages import CHUNK, Assembler, encode
from fedemu.strategies._base import Aggregation
from fedemu.strategies.fedasync import fedasync
from fedemu.strategies.fedavg import fedavg
from fedemu.types import Encoded, Trained, Training

TRANSPORTS = pytest.mark.parametrize("transport", [MemoryTransport, GrpcTransport], ids=["memory", "grpc"])


def answering(coding, delta=None, *, feedback=True):
    """Train to a delta, or to the model that it starts from, and encode it as a client does."""

    def train(job):
        vector = job.weights if delta is None else torch.tensor(delta)
        trained = Trained(torch.empty(0), 1, 1, 0.5)
        if coding is None:
            return trained._replace(delta=vector), {}
        data, left = coding.encode(vector, job.state.get("left"), None)
        return trained, {} if left is None else {"left": left}, Encoded(data, len(vector))

    return train


def noting(notes):
    """Average, and note of each update from which model its client started."""
    plain = fedavg(Training())

    def add(total, update):
        notes.append(update)
        return plain.aggregate.add(total, update)

    return plain._replace(aggregate=plain.aggregate._replace(add=add, needs_base=True))


# --- bytes


@TRANSPORTS
@pytest.mark.parametrize(
    ("coding", "length"), [(Coding(bf16()), 6), (Coding(int8()), 7), (Coding(topk(ratio=0.4), feedback=True), 8)]
)
def test_an_encoded_update_weighs_its_bytes_and_its_framing(toy, transport, coding, length):
    """12 bytes of floats become so many; beside them only their length is announced, one tag and one byte."""
    raw = toy.play({"c/0": toy.Client()}).the("TransferEnded", direction="up")
    train = answering(coding, [1.0, 0.0, 0.0])
    played = toy.play({"c/0": toy.Client(train=train, encodes=coding)}, transport=transport)
    ended = played.the("TransferEnded", direction="up")
    assert ended.bytes == raw.bytes - 12 + length + 2
    assert ended.bytes == played.the("UpdateSent").bytes
    assert played.weights == pytest.approx([1.0, 0.0, 0.0])


@TRANSPORTS
def test_an_encoded_model_weighs_its_bytes_and_its_framing(toy, transport):
    """Six bytes of bf16 and two to announce them, instead of twelve."""
    raw = toy.play({"c/0": toy.Client()}).the("TransferEnded", direction="down")
    played = toy.play({"c/0": toy.Client(decodes=Coding(bf16()))}, transport=transport)
    ended = played.the("TransferEnded", direction="down")
    assert ended.bytes == raw.bytes - 12 + 6 + 2 == played.the("TaskReceived").bytes


def test_a_round_is_shorter_by_the_smaller_transfers_and_longer_by_the_coding(toy):
    """80 bit/s are 10 bytes a second both ways; 2 x 4 bytes less are 0.8 s less; decoding and encoding take 0.25 s."""
    link = {"up": toy.way(rate=80.0), "down": toy.way(rate=80.0)}
    raw = toy.play({"c/0": toy.Client(**link)})
    coding = Coding(bf16())
    client = toy.Client(train=answering(coding, [1.0, 0.0, 0.0]), encodes=coding, decodes=coding, coding=0.25, **link)
    played = toy.play({"c/0": client})
    assert played.end == pytest.approx(raw.end - 0.8 + 0.25, abs=1e-9)
    assert played.the("TrainingFinished").duration == 1.25


def test_both_transports_bring_the_same_bytes(toy):
    """Three rounds of differences down and of the largest number with memory up: 2 of y, 2 of x, 4 of y."""
    over_memory, over_grpc = (
        toy.play({"c/0": compressing(toy)}, stop={"rounds": 3}, transport=transport)
        for transport in (MemoryTransport, GrpcTransport)
    )
    assert over_memory.lines == over_grpc.lines
    assert over_memory.weights == over_grpc.weights == [2.0, 6.0, 0.0]


def compressing(toy):
    up = Coding(topk(ratio=0.01), feedback=True)
    return toy.Client(
        train=answering(up, [1.0, 2.0, 0.0]), encodes=up, decodes=Coding(bf16()), keeps=True, takes=(1.0,)
    )


# --- error feedback


def left_before(played, client="c/0"):
    """Return what the client's codec had left out before each training."""
    nothing = torch.zeros(3)
    return [job.state.get("left", nothing).tolist() for job in played.jobs if job.client == client]


def test_what_an_update_leaves_out_goes_into_the_next(toy):
    """Of (1, 2, 0) the 2 travels; of (1, 2, 0) + (1, 0, 0) the first 2, of (0, 2, 0) + (1, 2, 0) the 4."""
    coding = Coding(topk(ratio=0.01), feedback=True)
    client = toy.Client(train=answering(coding, [1.0, 2.0, 0.0]), encodes=coding)
    played = toy.play({"c/0": client}, stop={"rounds": 3}, every=1)
    assert left_before(played) == [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0]]
    assert played.models == [[0.0, 2.0, 0.0], [2.0, 2.0, 0.0], [2.0, 6.0, 0.0]]


@pytest.mark.parametrize(("takes", "late", "rounds"), [(4.0, "cancel", 3), (2.9, "cancel", 3), (2.9, "drop", 4)])
def test_an_update_that_came_to_nothing_leaves_out_nothing(toy, takes, late, rounds):
    """Round 2 closes 3 s after its start, in mid-training or with 0.4 s to go: the next starts from what 1 left out."""
    coding = Coding(topk(ratio=0.01), feedback=True)
    train = answering(coding, [1.0, 2.0, 0.0])
    client = toy.Client(train=train, encodes=coding, takes=(1.0, takes, 1.0), up=toy.way(delay=0.5))
    clients = {"c/0": client, "c/1": toy.Client()}
    played = toy.play(clients, policy={"deadline": 3.0, "late": late}, stop={"rounds": rounds})
    assert left_before(played) == [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
    assert [(e.client, e.round) for e in played.of("UpdateLost")] == [("c/0", 2)]


def test_an_update_that_is_lost_on_the_way_leaves_out_nothing(toy):
    """Round 2's update is dropped, and there is no second attempt."""
    coding = Coding(topk(ratio=0.01), feedback=True)
    number = iter(range(3))

    def second(packet, rng):
        return None if packet.role == "request" and next(number) == 1 else packet

    client = toy.Client(
        train=answering(coding, [1.0, 2.0, 0.0]),
        encodes=coding,
        up=toy.way(after=[("second", second)]),
        retry=Retry(attempts=1, timeout=2.0),
    )
    played = toy.play({"c/0": client, "c/1": toy.Client()}, stop={"rounds": 3})
    assert left_before(played) == [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
    assert played.the("UpdateLost").reason == "undelivered: update not acknowledged after 1 attempts"


def test_an_update_that_is_sent_twice_leaves_out_once(toy):
    """The first answer is lost; the update goes out again 1 s later, and the second answer makes it remember."""
    coding = Coding(topk(ratio=0.01), feedback=True)
    answers = iter([False])

    def lossy(packet, rng):
        return packet if packet.role != "response" or next(answers, True) else None

    client = toy.Client(
        train=answering(coding, [1.0, 2.0, 0.0]),
        encodes=coding,
        takes=(1.0, 1.0),
        retry=Retry(2, 1.0),
        down=toy.way(after=[("lossy", lossy)]),
    )
    slow = toy.Client(takes=(5.0,))
    played = toy.play({"c/0": client, "c/1": slow}, stop={"rounds": 2})
    first, again = played.of("UpdateSent", client="c/0", round=1)
    assert (first.bytes, again.at - first.at >= 1.0) == (again.bytes, True)
    assert left_before(played) == [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
    assert len(played.of("UpdateReceived", client="c/0", round=1)) == 1


# --- models that are not what the server has


@pytest.mark.parametrize("keeps", [False, True], ids=["whole", "difference"])
def test_an_update_is_to_the_model_that_its_client_has_and_not_to_the_servers(toy, keeps):
    """1.005 has no bf16: its client starts from 1, or from 0 + 1; FedAsync mixes what it really arrived at."""
    coding = Coding(bf16())
    client = toy.Client((1.005, 0.0, 0.0), decodes=coding, keeps=keeps)
    strategy = fedasync(Training(), alpha=1.0)
    played = toy.play({"c/0": client}, strategy=strategy, stop={"rounds": 2}, every=1)
    started = [job.weights[0].item() for job in played.jobs]
    assert started == [0.0, 1.0078125]  # the nearest to 1.005 of 8 bits is 129 / 128
    assert played.weights[0] == pytest.approx(1.0078125 + 1.005, rel=1e-6)


@pytest.mark.parametrize("coding", [None, Coding(none()), Coding(bf16()), Coding(topk(ratio=0.01))])
def test_the_server_knows_what_model_each_client_started_from(toy, coding):
    """A client answers with the model that it has: bit for bit the one that the server notes as its base."""
    notes = []
    clients = {
        "c/0": toy.Client((0.3, 0.7, 0.11)),
        "c/1": toy.Client(train=answering(None), decodes=coding, keeps=coding is not None, takes=(1.0,)),
    }
    toy.play(clients, stop={"rounds": 5}, strategy=noting(notes))
    mine = [update for update in notes if update.client == "c/1"]
    assert len(mine) == 5
    assert all(torch.equal(update.base, update.delta) for update in mine)


def test_the_first_model_travels_whole_and_then_differences(toy):
    """Twelve bytes, then six of bf16 with their length (2) and the name of the model they differ from (8)."""
    played = toy.play({"c/0": toy.Client(decodes=Coding(bf16()), keeps=True)}, stop={"rounds": 3})
    plain = toy.play({"c/0": toy.Client()}, stop={"rounds": 3})
    sizes = [e.bytes for e in played.of("TaskSent")]
    saved = [raw.bytes - size for raw, size in zip(plain.of("TaskSent"), sizes, strict=True)]
    assert saved == [0, 12 - 6 - 2 - 8, 12 - 6 - 2 - 8]


def lossy_down(*lost):
    """Drop the requests of these numbers, from 1 on."""
    number = iter(range(1, 100))
    return ("lossy", lambda packet, rng: None if packet.role == "request" and next(number) in lost else packet)


def test_a_cancel_that_overtakes_a_lost_task_does_not_make_it_a_model_that_the_client_has(toy):
    """Round 2's task is lost and cancelled at 4 s; c/1 rests in round 3; round 4's difference is to round 1's model."""
    notes, asked = [], iter([2, 2, 1, 2])
    clients = {
        "c/0": toy.Client((0.3, 0.0, 0.0)),
        "c/1": toy.Client(
            train=answering(None), decodes=Coding(bf16()), keeps=True, down=toy.way(after=[lossy_down(2)])
        ),
    }
    played = toy.play(
        clients,
        policy={"deadline": 3.0},
        stop={"rounds": 4},
        strategy=noting(notes),
        select=lambda views, count, rng: [view.client for view in views[: next(asked)]],
    )
    assert played.ends == {"c/0": None, "c/1": None}
    mine = [update for update in notes if update.client == "c/1"]
    assert [update.version for update in mine] == [0, 3]
    assert all(torch.equal(update.base, update.delta) for update in mine)


def test_who_comes_back_gets_a_whole_model_again(toy):
    """c/1 leaves at 1.5 s and is back at 1.75 s: neither end has a model any more, and no difference is to one."""

    async def leave_and_return(federation, rejoin):
        await federation.clock.sleep_until(1.5)
        await federation.conversations["c/1"].aclose()
        await federation.clock.sleep_until(1.75)
        rejoin("c/1")

    clients = {"c/0": toy.Client((0.3, 0.0, 0.0)), "c/1": toy.Client(decodes=Coding(bf16()), keeps=True)}
    played = toy.play(clients, stop={"rounds": 4}, meanwhile=leave_and_return)
    sizes = {e.round: e.bytes for e in played.of("TaskSent", client="c/1")}
    plain = {e.round: e.bytes for e in played.of("TaskSent", client="c/0")}
    assert sizes[1] == plain[1]
    assert sizes[2] != plain[2]
    assert sizes[3] == plain[3]
    assert sizes[4] != plain[4]


class Fates:
    """What becomes of messages in one direction, one after the other; after the last, all arrive."""

    def __init__(self, fates):
        self._fates = iter(fates)

    def __call__(self, packet, rng):
        fate = next(self._fates, 0.0)
        if fate is None:
            return None if packet.role != "control" else packet
        return packet._replace(at=packet.at + fate)


FATES = st.lists(st.sampled_from([0.0, 0.0, 0.4, 1.5, None]), max_size=25)
CODINGS = st.sampled_from(
    [Coding(none()), Coding(bf16()), Coding(int8(block=2), level=1), Coding(topk(ratio=0.5)), Coding(topk(ratio=0.01))]
)


@st.composite
def histories(draw):
    return {
        "down": draw(FATES),
        "up": draw(FATES),
        "takes": tuple(draw(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.5]), min_size=1, max_size=6))),
        "retry": draw(st.sampled_from([Retry(1, 2.0), Retry(3, 0.5, 0.1), Retry(2, 1.0, 0.5)])),
        "coding": draw(CODINGS),
        "asked": draw(st.lists(st.booleans(), min_size=12, max_size=12)),
        "away": draw(st.lists(st.sampled_from([0.3, 1.1, 2.7]), max_size=3)),
        "policy": draw(
            st.sampled_from(
                [
                    {"deadline": 2.0},
                    {"deadline": 2.0, "late": "drop"},
                    {"deadline": 2.0, "late": "keep"},
                    {"goal": 1, "barrier": False, "late": "keep"},
                    {"tick": 1.5, "late": "keep"},
                ]
            )
        ),
    }


def shrinking(toy_):
    """Make 3 new numbers of each round, whatever comes, so that no two models are the same."""
    draws = torch.Generator().manual_seed(3)
    plain = fedavg(Training())

    def wrapped(notes):
        def add(total, update):
            notes.append(update)
            return total

        def finish(total, weights, state, rng):
            return torch.randn(3, generator=draws), state

        return plain._replace(aggregate=Aggregation(list, add, finish, needs_base=True))

    return wrapped


@settings(max_examples=150, deadline=None, derandomize=True)
@given(histories())
def test_client_and_server_agree_on_every_model_whatever_gets_lost(toy, history):
    """Truth is what the client was given to train from, which is what it answers with."""
    notes, asked = [], iter(history["asked"])

    async def come_and_go(federation, rejoin):
        for wait in history["away"]:
            await federation.clock.sleep_until(federation.clock.now() + wait)
            if federation.tasks["c/1"].done():
                return
            await federation.conversations["c/1"].aclose()
            await federation.clock.sleep_until(federation.clock.now() + 0.25)
            await federation.server.wait_until_gone("c/1")
            rejoin("c/1")

    clients = {
        "c/0": toy.Client(train=answering(None)),
        "c/1": toy.Client(
            train=answering(None),
            decodes=history["coding"],
            keeps=True,
            takes=history["takes"],
            retry=history["retry"],
            down=toy.way(after=[("fates", Fates(history["down"]))]),
            up=toy.way(after=[("fates", Fates(history["up"]))]),
        ),
    }
    played = toy.play(
        clients,
        policy={"concurrency": 2, **history["policy"]},
        stop={"rounds": 10, "time": 60.0},
        strategy=shrinking(toy)(notes),
        select=lambda views, count, rng: [v.client for v in views if v.client == "c/0" or next(asked, True)][:count],
        meanwhile=come_and_go if history["away"] else None,
    )
    assert not any(getattr(end, "status", None) for end in played.ends.values()), played.ends
    assert all(torch.equal(update.base, update.delta) for update in notes)
    started = {(job.round, job.turn) for job in played.jobs if job.client == "c/1"}
    assert len(started) == sum(job.client == "c/1" for job in played.jobs), "a task was trained twice"


# --- what neither may say


def encoded(toy, data, size, *, name="delta"):
    assignment = toy.pb.Assignment(round=1, turn=1, attempt=1)
    header = toy.pb.Update(assignment=assignment, version=0, num_examples=1, num_steps=1)
    return toy.Message(header, {name: Encoded(data, size)})


def saying(toy, message, coding):
    async def script(conversation):
        while not isinstance((received := await conversation.receive()).header, toy.pb.Goodbye):
            if isinstance(received.header, toy.pb.Task):
                await conversation.send(message)

    return toy.Client(script=script, encodes=coding)


JUNK = {
    "no bytes of that codec": (b"\0" * 5, 3, Coding(bf16()), "delta cannot be decoded: 5 bytes"),
    "not finite": (b"\x80\x7f" * 3, 3, Coding(bf16()), "delta cannot be decoded: "),
    "not zstd": (b"\xff" * 6, 3, Coding(bf16(), level=3), "delta cannot be decoded: "),
    "another size": (b"\0" * 4, 2, Coding(bf16()), "delta of 2 numbers; the model has 3"),
    "no codec": (b"\0" * 6, 3, None, "delta is encoded; no codec is expected there"),
}


@pytest.mark.parametrize("what", JUNK)
def test_encoded_bytes_that_stand_for_nothing_are_refused_and_the_run_goes_on(toy, what):
    """Refused at 0 s; the round closes at 1 s with the other's update; who sent them stays to the end."""
    data, size, coding, reason = JUNK[what]
    played = toy.play({"c/0": toy.Client(), "c/1": saying(toy, encoded(toy, data, size), coding)})
    rejected = played.the("UpdateRejected")
    assert (rejected.at, rejected.client) == (0.0, "c/1")
    assert rejected.reason.startswith(reason)
    assert played.weights == [1.0, 0.0, 0.0]
    assert [e.reason for e in played.of("ClientLeft")] == ["the run is over"] * 2


def test_an_encoded_vector_beside_the_delta_is_refused(toy):
    """Only deltas have a codec; what an algorithm sends beside them travels as it is."""
    message = encoded(toy, b"\0" * 6, 3, name="control")
    played = toy.play({"c/0": toy.Client(), "c/1": saying(toy, message, Coding(bf16()))})
    assert played.the("UpdateRejected").reason == "control is encoded; no codec is expected there"


HALVES = Encoded(b"\0" * 6, 3)
KNOWN = {"round": 1, "turn": 1, "attempt": 1}
UNTOLD = {
    "no codec": ((None, False), [({"model": HALVES}, None)], "model is encoded, and this client has no codec for it"),
    "not the model": (
        (Coding(bf16()), False),
        [({"model": torch.zeros(3), "control": HALVES}, None)],
        "control is encoded, and this client has no codec for it",
    ),
    "no bytes of that codec": (
        (Coding(bf16()), False),
        [({"model": Encoded(b"\0" * 5, 3)}, None)],
        "the model cannot be decoded: ",
    ),
    "unknown model": (
        (Coding(bf16()), True),
        [({"model": HALVES}, KNOWN)],
        "a difference to a model that this client does not have",
    ),
    "no models kept": (
        (Coding(bf16()), False),
        [({"model": torch.zeros(3)}, None), ({"model": HALVES}, KNOWN)],
        "a difference to a model that this client does not have",
    ),
    "another size": (
        (Coding(bf16()), True),
        [({"model": torch.zeros(3)}, None), ({"model": Encoded(b"\0" * 2, 1)}, KNOWN)],
        "a difference of 1 numbers to a model of 3",
    ),
}


@pytest.mark.parametrize("what", UNTOLD)
async def test_a_client_leaves_a_server_whose_models_it_cannot_read(toy, what):
    """It says why; a server by hand sends tasks that no server of ours would send."""
    (decodes, keeps), tasks, reason = UNTOLD[what]
    transport = MemoryTransport()

    async def serve(channel):
        conversation = Conversation(channel, limit=12)
        await conversation.receive()
        await conversation.send(toy.Message(toy.pb.Welcome(client="c/0", scenario="{}")))
        await conversation.receive()
        for round, (vectors, reference) in enumerate(tasks, start=1):
            named = None if reference is None else toy.pb.Assignment(**reference)
            task = toy.pb.Task(assignment=toy.pb.Assignment(round=round, turn=1, attempt=1), reference=named)
            await conversation.send(toy.Message(task, vectors))
        with suppress(NetworkError):
            while True:
                await conversation.receive()

    federation = toy.Federation({"c/0": toy.Client(decodes=decodes, keeps=keeps)}, RealClock())
    federation.hosted = True
    async with transport.serve(serve) as address:
        error = await federation.take_part("c/0", transport, address)
    assert error.status == "INVALID_ARGUMENT"
    assert error.text.startswith(reason)


# --- frames


@pytest.mark.parametrize("length", [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK])
def test_encoded_bytes_cross_chunks_as_they_are(toy, length):
    """Whole, beside a plain vector, and weighing what the frames weigh with five bytes each."""
    data = bytes(number % 251 for number in range(length))
    header = toy.pb.Update(assignment=toy.pb.Assignment(round=1, turn=1, attempt=1))
    message = toy.Message(header, {"delta": Encoded(data, length), "control": torch.tensor([1.0, 2.0])})
    assembler = Assembler(limit=length + 2)
    frames = list(encode(message))
    *early, received = map(assembler.feed, frames)
    assert early == [None] * len(early)
    assert (bytes(received.vectors["delta"].data), received.vectors["delta"].size) == (data, length)
    assert received.vectors["control"].tolist() == [1.0, 2.0]
    assert received.size == message.size == sum(len(frame) + 5 for frame in frames)


@pytest.mark.parametrize(
    ("size", "length", "limit", "text"),
    [
        (4, 2000, 3, "vectors of 4 numbers; at most 3 are expected here"),
        (3, 1024 + 8 * 3 + 1, 3, "1049 bytes for 3 numbers; at most 8 a number and 1024 more are expected"),
        (0, 1025, 3, "1025 bytes for 0 numbers; at most 8 a number and 1024 more are expected"),
    ],
)
def test_more_than_any_codec_makes_is_refused_before_memory_is_taken(toy, size, length, limit, text):
    """Eight bytes a number and a kilobyte; numbers count as those of plain vectors do."""
    frame = toy.pb.Frame(update=toy.pb.Update(), vectors=[toy.pb.Vector(name="delta", size=size, length=length)])
    with pytest.raises(PeerError, match="RESOURCE_EXHAUSTED") as caught:
        Assembler(limit).feed(frame.SerializeToString())
    assert caught.value.text == text
