"""Messages: sizes as they are on the wire, round trips, and refusals."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedemu.errors import PeerError
from fedemu.net._pb import federation_pb2 as pb
from fedemu.net.messages import CHUNK, FRAMING, Assembler, Message, encode

NAME = pb.Assignment(round=3, turn=1, attempt=2)


def message(numbers: int, extra: int = 0) -> Message:
    vectors = {"delta": torch.arange(numbers, dtype=torch.float32)}
    if extra:
        vectors["control"] = torch.ones(extra)
    return Message(pb.Update(assignment=NAME, version=2, num_examples=7, num_steps=1, train_loss=0.5), vectors)


@pytest.mark.parametrize("numbers", [0, 1, 31, 32, 4096, CHUNK // 4 - 1, CHUNK // 4, CHUNK // 4 + 1, 3 * CHUNK // 4])
def test_the_wire_size_is_what_is_really_sent(numbers):
    """The sum of the frames' lengths and gRPC's 5 bytes on each, at every edge of the varints and chunks."""
    for update in (message(numbers), message(numbers, extra=3)):
        assert update.size == sum(len(frame) + FRAMING for frame in encode(update))


@given(sizes=st.lists(st.integers(0, 2 * CHUNK // 4), min_size=0, max_size=3))
def test_vectors_arrive_bit_for_bit(sizes):
    vectors = {f"v{i}": torch.rand(size) for i, size in enumerate(sizes)}
    assembler = Assembler(limit=sum(sizes))
    frames = list(encode(Message(pb.Task(assignment=NAME, version=1), vectors)))
    *early, last = [assembler.feed(frame) for frame in frames]
    assert early == [None] * (len(frames) - 1)
    assert last is not None
    assert last.header == pb.Task(assignment=NAME, version=1)
    assert {name: v.numpy().tobytes() for name, v in last.vectors.items()} == {
        name: v.numpy().tobytes() for name, v in vectors.items()
    }


def test_no_frame_is_larger_than_a_mebibyte():
    """gRPC refuses messages over 4 MiB by default."""
    assert max(len(frame) for frame in encode(message(CHUNK))) <= 2**20


@pytest.mark.parametrize(
    ("frames", "status", "text"),
    [
        ([b"\xff\xff garbage"], "INVALID_ARGUMENT", "not a fedemu.v1.Frame"),
        ([b""], "INVALID_ARGUMENT", "without content"),
        ([pb.Frame(chunk=b"1234").SerializeToString()], "INVALID_ARGUMENT", "no message announced"),
        (
            [
                pb.Frame(update=pb.Update(), vectors=[pb.Vector(name="delta", size=2)]).SerializeToString(),
                pb.Frame(chunk=b"123456789").SerializeToString(),
            ],
            "INVALID_ARGUMENT",
            "1 bytes more than the message announced",
        ),
        (
            [
                pb.Frame(update=pb.Update(), vectors=[pb.Vector(name="delta", size=2)]).SerializeToString(),
                pb.Frame(hello=pb.Hello()).SerializeToString(),
            ],
            "INVALID_ARGUMENT",
            "a hello where 8 bytes of the last message were expected",
        ),
        (
            [pb.Frame(update=pb.Update(), vectors=[pb.Vector(name="delta", size=2)] * 2).SerializeToString()],
            "INVALID_ARGUMENT",
            "two vectors of one name: delta, delta",
        ),
        (
            [pb.Frame(update=pb.Update(), vectors=[pb.Vector(name="delta", size=2**60)]).SerializeToString()],
            "RESOURCE_EXHAUSTED",
            "at most 10 are expected",
        ),
    ],
)
def test_what_the_protocol_does_not_allow_is_refused(frames, status, text):
    assembler = Assembler(limit=10)
    *before, last = frames
    for frame in before:
        assembler.feed(frame)
    with pytest.raises(PeerError, match=text) as refusal:
        assembler.feed(last)
    assert refusal.value.status == status
