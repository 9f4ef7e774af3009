"""What travels in tasks and updates, at the server's end: models encoded for a client, updates decoded and checked."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from fedemu.codecs._base import Coding, is_finite
from fedemu.errors import failure_of
from fedemu.net._pb import federation_pb2 as pb
from fedemu.rng import stream
from fedemu.sessions import Assignment, Session
from fedemu.types import Encoded, Payload, Update, Vector


class Packed(NamedTuple):
    """A model on its way to a client."""

    payload: Payload
    model: Vector
    """As the client has it then, shape (d,)."""
    reference: pb.Assignment | None = None
    """The task to whose model the payload is the difference; None, it is the model itself."""


class Packing:
    """Packs models and unpacks updates.

    Args:
        parameters: Length d of the model vector.
        seed: Of the run; for codecs that draw.
        check: Says what is wrong with an update, in the eyes of the algorithm; None if nothing is.
    """

    def __init__(self, parameters: int, seed: int, check: Callable[[Update], str | None]) -> None:
        self._parameters, self._seed, self._check = parameters, seed, check
        self._encoded: dict[str, tuple[int, Packed]] = {}
        """By group: the version that was encoded last, and what became of it."""

    def pack(self, session: Session, assignment: Assignment, weights: Vector) -> Packed:
        """Return the global model as it travels; one that is not finite travels as it is.

        Args:
            session: The client's.
            assignment: That it is for; its version is the model's.
            weights: The global model, shape (d,).

        Raises:
            RunError: The codec failed.
        """
        coding, view, version = session.seat.down, assignment.view, assignment.version
        if coding is None or not is_finite(weights):
            return Packed(weights, weights)
        if session.seat.by_difference:
            if session.reference is None:
                return Packed(weights, weights)
            task, mine = session.reference
            draws = stream(self._seed, "codec", view.client, "down", assignment.round, assignment.turn)
            with failure_of(f"encoding of a model for {view.client}"):
                data, _ = coding.encode(weights - mine, None, draws)
                return Packed(Encoded(data, len(weights)), mine + coding.decode(data, len(weights)), task)
        last, packed = self._encoded.get(view.group, (None, Packed(weights, weights)))
        if last != version:
            draws = stream(self._seed, "codec", view.group, "down", version)
            with failure_of(f"encoding of a model for {view.group}"):
                data, _ = coding.encode(weights, None, draws)
                packed = Packed(Encoded(data, len(weights)), coding.decode(data, len(weights)))
            self._encoded[view.group] = version, packed
        return packed

    def unpack(
        self, coding: Coding | None, assignment: Assignment, header: pb.Update, payloads: Mapping[str, Payload]
    ) -> Update | str:
        """Return the update that a client has sent, or what is wrong with it.

        Args:
            coding: How the client encodes updates.
            assignment: That it answers.
            header: Its numbers.
            payloads: Its vectors by name, as they have come.
        """
        vectors = dict[str, Vector]()
        for name, payload in payloads.items():
            if not isinstance(payload, Encoded):
                vectors[name] = payload
            elif name != "delta" or coding is None:
                return f"{name} is encoded; no codec is expected there"
            elif payload.size != self._parameters:
                return f"delta of {payload.size} numbers; the model has {self._parameters}"
            else:
                try:
                    vectors[name] = coding.decode(payload.data, payload.size)
                except ValueError as error:
                    return f"delta cannot be decoded: {error}"
        fault = self._fault(assignment, header, vectors)
        if fault is not None:
            return fault
        update = Update(
            client=assignment.view.client,
            delta=vectors.pop("delta"),
            num_examples=header.num_examples,
            num_steps=header.num_steps,
            train_loss=header.train_loss,
            version=header.version,
            extras=vectors,
            squared_loss=header.squared_loss,
        )
        return self._check(update) or update

    def _fault(self, assignment: Assignment, header: pb.Update, vectors: Mapping[str, Vector]) -> str | None:
        delta = vectors.get("delta")
        if delta is None:
            return "no vector 'delta'"
        if delta.numel() != self._parameters:
            return f"delta of {delta.numel()} numbers; the model has {self._parameters}"
        if header.version != assignment.version:
            return f"version {header.version}; the task was version {assignment.version}"
        for name in ("train_loss", "squared_loss"):  # selectors compare them
            if header.num_steps and not math.isfinite(getattr(header, name)):
                return f"{name} {getattr(header, name)}; expected a finite number"
        for name, vector in vectors.items():
            if not is_finite(vector):
                return f"{name} has numbers that are not finite"
        return None
