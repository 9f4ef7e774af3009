"""Messages and their encoding: one header frame, then the chunks of its vectors (proto/fedemu/v1/federation.proto).

Vectors are sent straight from their memory and received straight into the memory they will have, one bounded chunk at
a time, so that neither end holds a large model twice.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import torch
from google.protobuf.message import DecodeError

from fedemu.errors import PeerError
from fedemu.net._pb import federation_pb2 as pb
from fedemu.types import Bytes, Encoded, Payload, Vector

PROTOCOL = 1
"""Version of the wire contract, said in Hello."""

CHUNK = 2**20 - 16
"""Bytes of vector in one frame: with its framing a little under 1 MiB."""

FRAMING = 5
"""Bytes that gRPC puts before each message."""

LARGEST = 8
"""Bytes that a number may take in an encoded vector: an index and a value."""

SPARE = 1024
"""Bytes that the encoded vectors of a message may have beside that."""

Header: TypeAlias = (
    pb.Hello
    | pb.Welcome
    | pb.Task
    | pb.Receipt
    | pb.Update
    | pb.Answer
    | pb.Cancel
    | pb.Abandoned
    | pb.Goodbye
    | pb.Ready
    | pb.Enrolled
)


@dataclass(frozen=True)
class Message:
    """A header and the vectors beside it."""

    header: Header
    vectors: Mapping[str, Payload] = field(default_factory=dict)

    @cached_property
    def first(self) -> bytes:
        """Its first frame: the header, and what vectors follow."""
        frame = pb.Frame(vectors=[_announced(name, vector) for name, vector in self.vectors.items()])
        getattr(frame, type(self.header).__name__.lower()).CopyFrom(self.header)
        return frame.SerializeToString()

    @cached_property
    def size(self) -> Bytes:
        """What it weighs on the link: its frames as `encode` makes them, and gRPC's 5 bytes on each."""
        size = len(self.first) + FRAMING
        for vector in self.vectors.values():
            whole, rest = divmod(len(vector.data) if isinstance(vector, Encoded) else 4 * vector.numel(), CHUNK)
            size += whole * _chunk_size(CHUNK) + (_chunk_size(rest) if rest else 0)
        return size


def encode(message: Message) -> Iterator[bytes]:
    """Yield the message's frames, each under 1 MiB, made when it is asked for."""
    yield message.first
    for vector in message.vectors.values():
        data = memoryview(vector.data) if isinstance(vector, Encoded) else _memory(vector.contiguous())
        for start in range(0, len(data), CHUNK):
            yield pb.Frame(chunk=bytes(data[start : start + CHUNK])).SerializeToString()


def _announced(name: str, vector: Payload) -> pb.Vector:
    if isinstance(vector, Encoded):
        return pb.Vector(name=name, size=vector.size, length=len(vector.data))
    return pb.Vector(name=name, size=vector.numel())


def _memory(vector: Vector) -> memoryview:
    array: Any = vector.numpy()
    return memoryview(array).cast("B")


def _chunk_size(length: Bytes) -> Bytes:
    varint = max(1, -(-length.bit_length() // 7))
    return FRAMING + 1 + varint + length


class Assembler:
    """Puts frames together into messages; refuses what the protocol does not allow.

    Args:
        limit: Numbers that the vectors of one message may have in all; more is refused before memory is taken.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._header: Header | None = None
        self._vectors: dict[str, Payload] = {}
        self._open: list[memoryview] = []

    def feed(self, data: bytes) -> Message | None:
        """Take the next frame; return the message that it completes, if it does.

        Raises:
            PeerError: INVALID_ARGUMENT for what is not a frame or stands out of order, RESOURCE_EXHAUSTED for vectors
                larger than the limit.
        """
        try:
            frame = pb.Frame.FromString(data)
        except DecodeError:
            raise PeerError("INVALID_ARGUMENT", f"{len(data)} bytes that are not a fedemu.v1.Frame") from None
        content = frame.WhichOneof("content")
        if content is None:
            raise PeerError("INVALID_ARGUMENT", "a frame without content; this server speaks fedemu.v1")
        if content == "chunk":
            self._fill(memoryview(frame.chunk))
        else:
            self._begin(frame, content)
        if self._open:
            return None
        assert self._header is not None
        message = Message(self._header, self._vectors)
        self._header, self._vectors = None, {}
        return message

    def _begin(self, frame: pb.Frame, content: str) -> None:
        if self._open:
            left = sum(map(len, self._open))
            raise PeerError("INVALID_ARGUMENT", f"a {content} where {left} bytes of the last message were expected")
        names = [v.name for v in frame.vectors]
        if len(set(names)) < len(names):
            raise PeerError("INVALID_ARGUMENT", f"two vectors of one name: {', '.join(names)}")
        total = sum(v.size for v in frame.vectors)
        if total > self.limit:
            raise PeerError("RESOURCE_EXHAUSTED", f"vectors of {total} numbers; at most {self.limit} are expected here")
        length = sum(v.length for v in frame.vectors)
        if length > (SPARE + LARGEST * total if total else 0):
            text = f"{length} bytes for {total} numbers; at most {LARGEST} a number and {SPARE} more are expected"
            raise PeerError("RESOURCE_EXHAUSTED", text)
        self._header = getattr(frame, content)
        for announced in frame.vectors:
            if announced.length:
                memory = memoryview(bytearray(announced.length))
                self._vectors[announced.name] = Encoded(memory, announced.size)
                self._open.append(memory)
            elif announced.size:
                vector = self._vectors[announced.name] = torch.empty(announced.size, dtype=torch.float32)
                self._open.append(_memory(vector))
            else:
                self._vectors[announced.name] = torch.empty(0)

    def _fill(self, chunk: memoryview) -> None:
        if not self._open or not chunk:
            raise PeerError("INVALID_ARGUMENT", "a chunk that no message announced, or an empty one")
        while chunk:
            if not self._open:
                raise PeerError("INVALID_ARGUMENT", f"{len(chunk)} bytes more than the message announced")
            room = self._open[0]
            step = min(len(room), len(chunk))
            room[:step] = chunk[:step]
            chunk = chunk[step:]
            if step == len(room):
                self._open.pop(0)
            else:
                self._open[0] = room[step:]
