"""The keys of a scenario: a frozen, validated `Scenario` and its sections.

Every key of the contract that this version does not have is listed in `not_built`, so that it is a fault that says so.
"""

import re
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field

from fedemu.compute._buffer import BUFFER
from fedemu.keys import Clash, Keys, instead, shown
from fedemu.scenario.codec import CodecPair
from fedemu.scenario.device import DeviceKeys
from fedemu.scenario.kind import Kind, KindOf
from fedemu.scenario.link import Link, with_preset
from fedemu.scenario.rounds import Rounds
from fedemu.scenario.shared import ServerLink, Shared
from fedemu.scenario.training import TrainingKeys
from fedemu.types import ClientId, Training
from fedemu.units import DURATIONS, Count, Duration, Ratio, Size


class DatasetKeys(Keys):
    """What the house reads beside a data set's own keys."""

    examples: Count | None = None
    """Size of a seeded subset of the training examples; default all."""


def _every(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(rf".*\d\s*({'|'.join(DURATIONS)})", value):
        raise ValueError(f"{value!r} is not built yet; write a number of rounds, or end")
    if value != "end" and (isinstance(value, bool) or not isinstance(value, int)):
        raise ValueError(f"{shown(value)} is neither a number of rounds nor end")
    return None if value == "end" else value


class Evaluate(Keys):
    """When the global model is evaluated on the test set."""

    not_built: ClassVar[frozenset[str]] = frozenset({"per_client", "holdout"})
    every: Annotated[Count | None, BeforeValidator(_every, json_schema_input_type=Literal["end"] | Count)] = 1
    """Rounds between evaluations; end evaluates after the last round alone."""


class ConditionKeys(Keys):
    """What is true of a device from time to time; what is not said here always is."""

    charging: Annotated[Kind, KindOf("availabilities")] | None = None
    """When it is being charged."""
    unmetered: Annotated[Kind, KindOf("availabilities")] | None = None
    """When its network costs nothing."""
    idle: Annotated[Kind, KindOf("availabilities")] | None = None
    """When nobody uses it."""


class Group(Keys):
    """Like clients."""

    not_built: ClassVar[frozenset[str]] = frozenset({"attack", "submodel", "data"})
    count: Count
    """Number of clients in the group."""
    device: Annotated[Kind, KindOf("devices", house=DeviceKeys)] | None = None
    """How long training takes; without it, no emulated time."""
    link: Annotated[Link, BeforeValidator(with_preset)] = Link()
    """The way to the server; without it, no delay and no limit."""
    availability: Annotated[Kind, KindOf("availabilities")] | None = None
    """When clients are online; default the scenario's."""
    training: TrainingKeys = TrainingKeys()
    """What is different here from the scenario's training."""
    codec: CodecPair = CodecPair()
    """What is different here from the scenario's, each direction on its own; kind none sends every number as it is."""
    conditions: ConditionKeys = ConditionKeys()
    """What is true of the devices from time to time, for a selector that asks."""


class Server(Keys):
    """The server's end."""

    not_built: ClassVar[frozenset[str]] = frozenset({"device"})
    link: ServerLink = ServerLink()
    """What all transfers share; without it, no delay and no limit."""


class Stop(Keys):
    """When the run ends: whichever comes first."""

    accuracy: Ratio | None = None
    """Target accuracy on the test set."""
    rounds: Count | None = None
    """Rounds at most."""
    time: Annotated[Duration, Field(gt=0)] | None = None
    """Emulated time at most; ends a run in mid-round."""

    def clashes(self) -> Iterator[Clash]:
        """Yield the stop that may never come."""
        if self.rounds is None and self.time is None:
            text = "no end is certain, as the target may never be reached; add rounds or time"
            yield Clash(frozenset({"rounds", "time"}), (), text)


class Targets(Keys):
    """What is reported beside the target, without ending the run."""

    accuracy: list[Ratio] = Field(default=[])
    """Accuracies on the test set."""


class Compute(Keys):
    """Where training really runs; changes no event of a virtual run."""

    not_built: ClassVar[frozenset[str]] = frozenset({"device"})
    kind: Literal["auto", "inline", "pool"] = "auto"
    """auto, inline (one after the other, in this process) or pool (of processes)."""
    workers: Count | None = None
    """Processes of the pool; default one a core."""
    buffer: Size = BUFFER
    """Bytes of models and updates that wait in memory for their emulated time; more wait in files."""

    def clashes(self) -> Iterator[Clash]:
        """Yield workers that would have no work."""
        if self.workers is not None and self.kind == "inline":
            yield Clash(frozenset({"kind", "workers"}), ("workers",), "no meaning with inline; write kind: pool")


def _named(what: str) -> AfterValidator:
    def check(name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
            raise ValueError(f"{name!r} cannot name a {what}; write letters, digits, - and _")
        return name

    return AfterValidator(check)


GroupName: TypeAlias = Annotated[str, _named("group")]


class Scenario(Keys):
    """A scenario of fedemu: one run, or with `variants`, `matrix` and `repeat` a grid of them."""

    not_built: ClassVar[frozenset[str]] = frozenset(
        {
            "aggregate",
            "topology",
            "attack",
            "submodel",
            "data",
        }
    )
    name: Annotated[str, Field(min_length=1)]
    """What results are filed under; default the file's name."""
    seed: Annotated[int, Field(ge=0)] = 1
    """What all random streams come from."""
    clock: Literal["virtual", "real"] = "virtual"
    """virtual: emulated time as fast as the CPU allows; real: wall-clock time."""
    transport: Literal["memory", "grpc", "grpc-unix"] = "memory"
    """memory: queues within one process; grpc: real gRPC over TCP on this machine; grpc-unix: over a Unix socket. They
    change no event of a virtual run."""
    dataset: Annotated[Kind, KindOf("datasets", house=DatasetKeys)]
    """What is learned."""
    partition: Annotated[Kind, KindOf("partitioners")]
    """How the training examples are divided among the clients."""
    model: Annotated[Kind, KindOf("models")]
    """What learns it."""
    training: TrainingKeys = TrainingKeys()
    """How clients train."""
    strategy: Annotated[Kind, KindOf("strategies")]
    """How updates become a model."""
    codec: CodecPair = CodecPair()
    """How vectors travel in fewer bytes; default as they are."""
    evaluate: Evaluate = Evaluate()
    """When the global model is evaluated."""
    rounds: Rounds = Rounds()
    """Who takes part in a round, and when it closes."""
    availability: Annotated[Kind, KindOf("availabilities")] = Kind(
        "availabilities", "always", {"after": 0.0, "until": None}
    )
    """When clients are online; default always."""
    shared: dict[Annotated[str, _named("pipe")], Shared] = Field(default={})
    """Pipes that groups share, by name; a link goes through one with via."""
    clients: Annotated[dict[GroupName, Group], Field(min_length=1)]
    """Groups of like clients, by name."""
    server: Server = Server()
    """The server's end."""
    stop: Stop
    """When the run ends."""
    compute: Compute = Compute()
    """Where training really runs."""
    targets: Targets = Targets()
    """Accuracies that are reported, too."""
    variants: Annotated[dict[Annotated[str, _named("variant")], dict[str, Any]], Field(min_length=1)] | None = None
    """Bundles of dotted keys and their values, by name: each is a run of its own; {} is the scenario as it is."""
    matrix: Annotated[dict[str, Annotated[list[Any], Field(min_length=1)]], Field(min_length=1)] | None = None
    """Axes of a grid: dotted key to the values that it takes."""
    repeat: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Runs of each cell, with seeds seed, seed+1, ..."""

    @property
    def examples(self) -> int | None:
        """Size of the subset of the training examples; None takes all."""
        examples: int | None = self.dataset.house["examples"]
        return examples

    @property
    def num_clients(self) -> int:
        return sum(group.count for group in self.clients.values())

    @property
    def slots(self) -> dict[str, list[ClientId]]:
        """The clients of each group."""
        return {name: [f"{name}/{slot}" for slot in range(group.count)] for name, group in self.clients.items()}

    @property
    def cohort(self) -> int:
        """Clients at work at once."""
        return self.rounds.cohort(self.num_clients)

    def training_in(self, group: str) -> TrainingKeys:
        """Return how the clients of a group train: its own keys win."""
        own = self.clients[group].training
        return self.training.model_copy(update={key: getattr(own, key) for key in own.model_fields_set})

    def codec_in(self, group: str) -> CodecPair:
        """Return the codecs of a group: its own win."""
        own = self.clients[group].codec
        return self.codec.model_copy(update={key: getattr(own, key) for key in own.model_fields_set})

    def clashes(self) -> Iterator[Clash]:
        """Yield what one section says and another does not allow."""
        yield from self._pipes()
        yield from self._algorithms()
        yield from self._cohorts()

    def _pipes(self) -> Iterator[Clash]:
        # where other sections are faulty, some may be missing here: then there is nothing to say yet
        if {"shared", "clients"} <= self.__dict__.keys():
            for name, group in self.clients.items():
                if group.link.via is not None and group.link.via not in self.shared:
                    text = f"{group.link.via!r} is not a pipe under shared; {instead(group.link.via, self.shared)}"
                    yield Clash(frozenset({"shared", "clients"}), ("clients", name, "link", "via"), text)

    def _algorithms(self) -> Iterator[Clash]:
        if not {"strategy", "training", "clients"} <= self.__dict__.keys():
            return
        keys, refused = frozenset({"strategy", "training", "clients"}), dict[str, dict[str, None]]()
        for group in self.clients:
            training = self.training_in(group)
            for round in (1, *(change.round for change in training.schedule)):
                if text := self._refusal(training.in_round(round)):
                    refused.setdefault(text, {})[group] = None
        for text, groups in refused.items():
            of_any_training = text == self._refusal(Training())
            yield Clash(keys, ("strategy",), text if of_any_training else f"{text}; {' and '.join(groups)} train so")

    def _refusal(self, training: Training) -> str | None:
        """Return why the algorithm cannot be trained so; None if it can."""
        try:
            self.strategy.build(training)  # pure and cheap
        except ValueError as error:
            return str(error)
        return None

    def _cohorts(self) -> Iterator[Clash]:
        if not {"rounds", "clients"} <= self.__dict__.keys():
            return
        rounds, clients, cohort, keys = self.rounds, self.num_clients, self.cohort, frozenset({"rounds", "clients"})
        if cohort > clients:
            yield Clash(keys, ("rounds", "concurrency"), f"concurrency {cohort} is out of reach of {clients} clients")
            return
        reach = f"is out of reach of a cohort of {cohort} out of {clients} clients"
        if rounds.barrier and rounds.concurrency is None and rounds.goal is not None and rounds.goal > cohort:
            yield Clash(keys, ("rounds", "goal"), f"goal {rounds.goal} {reach}")
        if rounds.tick is None and rounds.goal is not None:
            if rounds.quorum > rounds.goal:
                text = f"quorum {rounds.quorum} is above goal {rounds.goal}, which closes a round"
                yield Clash(keys, ("rounds", "quorum"), text)
        elif rounds.quorum > cohort and (rounds.tick is None or rounds.barrier):  # else who is done starts again
            yield Clash(keys, ("rounds", "quorum"), f"quorum {rounds.quorum} {reach}")
