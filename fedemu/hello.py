"""The first message of a client: who it is, and whether it may come in at all."""

from collections.abc import Collection
from typing import NamedTuple

from fedemu.errors import PeerError
from fedemu.net._pb import federation_pb2 as pb
from fedemu.net.messages import PROTOCOL, Message
from fedemu.tokens import Tokens
from fedemu.types import ClientId

LONGEST = 255
"""Characters of a host's name."""


class Caller(NamedTuple):
    """A client that may come in, if there is a place for it."""

    group: str
    slot: int | None
    """That it asks for; None takes any."""
    host: str
    """Where it runs; empty where it did not say."""
    places: frozenset[str]
    """What is open to it: its group, or clients of it."""
    kernel: bool = False
    """Its kernel shapes its link."""

    def may_be(self, client: ClientId) -> bool:
        """Tell whether a client of its group is open to it."""
        return self.group in self.places or client in self.places

    @property
    def is_in_use(self) -> PeerError:
        """What it is told when somebody else has its slot."""
        return PeerError("ALREADY_EXISTS", f"slot {self.slot} of {self.group} is in use")

    def are_in_use(self, count: int) -> PeerError:
        """Return what it is told when others have all of the slots that are open to it, of which there are so many."""
        which = self.group if self.group in self.places else f"{self.group} for this token"
        return PeerError("RESOURCE_EXHAUSTED", f"all {count} slots of {which} are in use")


def admitted(message: Message, groups: Collection[str], tokens: Tokens | None) -> Caller:
    """Return who says hello.

    Args:
        message: The first of a connection.
        groups: Of the scenario.
        tokens: What clients need to join; None lets in whoever comes.

    Raises:
        PeerError: It is no hello, or none that may come in.
    """
    hello = message.header
    if not isinstance(hello, pb.Hello):
        raise PeerError("INVALID_ARGUMENT", f"{type(hello).__name__} where Hello was expected")
    if hello.protocol != PROTOCOL:
        raise PeerError("FAILED_PRECONDITION", f"protocol {hello.protocol}; this server speaks {PROTOCOL}")
    slot = hello.slot if hello.HasField("slot") else None
    places = frozenset({hello.group}) if tokens is None else tokens.open(hello.token, hello.group, slot)
    if hello.group not in groups:
        raise PeerError("NOT_FOUND", f"no group {hello.group!r}; there are {', '.join(groups)}")
    if len(hello.host) > LONGEST:
        raise PeerError("INVALID_ARGUMENT", f"a host of {len(hello.host)} characters; at most {LONGEST} are expected")
    return Caller(hello.group, slot, hello.host, places, hello.kernel)
