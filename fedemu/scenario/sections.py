"""The keys of a scenario: a frozen, validated `Scenario` and its sections.

Every key of the contract that this version does not have is listed in `not_built`, so that it is a fault that says so.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field

from fedemu.devices._base import Energy, Equipment, Memory, Straggler
from fedemu.keys import Clash, Keys, instead, shown
from fedemu.scenario.kind import Kind, KindOf
from fedemu.scenario.link import Link, with_preset
from fedemu.scenario.shared import ServerLink, Shared
from fedemu.types import Training
from fedemu.units import DURATIONS, Duration, Power, Ratio, Size

Count: TypeAlias = Annotated[int, Field(ge=1)]


class DatasetKeys(Keys):
    """What the house reads beside a data set's own keys."""

    examples: Count | None = None
    """Size of a seeded subset of the training examples; default all."""


def _batch_size(value: Any) -> Any:
    if value != "full" and (isinstance(value, bool) or not isinstance(value, int)):
        raise ValueError(f"{shown(value)} is neither a whole number nor full")
    return None if value == "full" else value


class TrainingKeys(Keys):
    """How clients train; in a group, the keys that are different there."""

    epochs: Count = Training().epochs
    """Passes over a client's examples in each round."""
    batch_size: Annotated[
        Count | None, BeforeValidator(_batch_size, json_schema_input_type=Literal["full"] | Count)
    ] = Training().batch_size
    """Examples a step; full takes all of a client's examples in one step."""
    lr: Annotated[float, Field(gt=0)] = Training().lr
    """Learning rate of the local steps."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = Training().momentum
    """Momentum of the local steps, which starts anew in every round."""


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


class Rounds(Keys):
    """Who takes part in a round, and when it closes."""

    select: Annotated[Kind, KindOf("selectors")] = Kind("selectors", "uniform")
    """How the cohort is chosen; default uniform."""
    fraction: Ratio | None = None
    """Share of the clients in the cohort; default 100%."""
    concurrency: Count | None = None
    """Clients at work at once; instead of fraction."""
    goal: Count | None = None
    """Updates that close a round; default the whole cohort."""
    quorum: Count = 1
    """Fewest updates that a round can close with at its deadline."""
    deadline: Annotated[Duration, Field(gt=0)] | None = None
    """Time after which a round closes without the stragglers; default never."""
    barrier: bool = True
    """True is synchronous; false lets clients start again as they finish."""
    late: Literal["cancel", "drop", "keep"] | None = None
    """What becomes of those still at work when a round closes; default cancel with a barrier, keep without."""

    def cohort(self, clients: int) -> int:
        """Return how many of that many clients are at work at once."""
        if self.concurrency is not None:
            return self.concurrency
        return max(1, round((1.0 if self.fraction is None else self.fraction) * clients))

    @property
    def for_the_late(self) -> Literal["cancel", "drop", "keep"]:
        """`late`, or its default."""
        return self.late or ("cancel" if self.barrier else "keep")

    def clashes(self) -> Iterator[Clash]:
        """Yield numbers that no round can meet."""
        if self.fraction is not None and self.concurrency is not None:
            keys = frozenset({"fraction", "concurrency"})
            yield Clash(keys, ("concurrency",), "fraction says it already; write one of the two")
        if self.barrier and self.goal is not None and self.concurrency is not None and self.goal > self.concurrency:
            text = f"goal {self.goal} is out of reach of concurrency {self.concurrency}"
            yield Clash(frozenset({"goal", "concurrency", "barrier"}), ("goal",), text)
        enough = self.goal or self.concurrency
        if enough is not None and self.quorum > enough:
            text = (
                f"quorum {self.quorum} is above {'goal' if self.goal else 'concurrency'} {enough}, which closes a round"
            )
            yield Clash(frozenset({"quorum", "goal", "concurrency"}), ("quorum",), text)


class StragglerKeys(Keys):
    """Trainings that are slow by chance."""

    probability: Ratio
    """Chance that a training is slow."""
    factor: Annotated[float, Field(ge=1)]
    """How many times as long it takes then."""


class EnergyKeys(Keys):
    """What a device draws while it does what."""

    compute: Power = 0.0
    """While it trains."""
    up: Power = 0.0
    """While it sends."""
    down: Power = 0.0
    """While it receives."""


class DeviceKeys(Keys):
    """What the house reads beside a device's own keys."""

    straggler: StragglerKeys | None = None
    """Trainings that are slow by chance."""
    memory: Annotated[Size, Field(gt=0)] | None = None
    """What the device has for training; a model that does not fit is not trained."""
    energy: EnergyKeys | None = None
    """Power that it draws, which is counted."""


def equipment(house: Mapping[str, Any]) -> Equipment:
    """Return what stands around a device, from the keys that the house reads."""
    straggler, memory, energy = (house[key] for key in ("straggler", "memory", "energy"))
    return Equipment(
        None if straggler is None else Straggler(**straggler.model_dump()),
        None if memory is None else Memory(memory),
        None if energy is None else Energy(**energy.model_dump()),
    )


class Group(Keys):
    """Like clients."""

    not_built: ClassVar[frozenset[str]] = frozenset({"attack", "codec", "submodel", "data"})
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


class Compute(Keys):
    """Where training really runs; changes no event of a virtual run."""

    not_built: ClassVar[frozenset[str]] = frozenset({"device"})
    kind: Literal["auto", "inline", "pool"] = "auto"
    """auto, inline (one after the other, in this process) or pool (of processes)."""
    workers: Count | None = None
    """Processes of the pool; default one a core."""

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
    """A scenario of fedemu: one run, or with `matrix` and `repeat` a grid of them."""

    not_built: ClassVar[frozenset[str]] = frozenset(
        {
            "aggregate",
            "codec",
            "targets",
            "variants",
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
    def cohort(self) -> int:
        """Clients at work at once."""
        return self.rounds.cohort(self.num_clients)

    def training_in(self, group: str) -> Training:
        """Return how the clients of a group train: its own keys win."""
        own: Mapping[str, Any] = self.clients[group].training.model_dump(exclude_unset=True)
        return Training(**{**self.training.model_dump(), **own})

    def clashes(self) -> Iterator[Clash]:
        """Yield pipes that are not there, and rounds that these clients cannot hold."""
        if {"shared", "clients"} <= self.__dict__.keys():
            for name, group in self.clients.items():
                if group.link.via is not None and group.link.via not in self.shared:
                    text = f"{group.link.via!r} is not a pipe under shared; {instead(group.link.via, self.shared)}"
                    yield Clash(frozenset({"shared", "clients"}), ("clients", name, "link", "via"), text)
        # where other sections are faulty, rounds and clients may be missing here: then there is nothing to say yet
        if not {"rounds", "clients"} <= self.__dict__.keys():
            return
        rounds, clients, keys = self.rounds, self.num_clients, frozenset({"rounds", "clients"})
        if rounds.concurrency is not None:
            if rounds.concurrency > clients:
                text = f"concurrency {rounds.concurrency} is out of reach of {clients} clients"
                yield Clash(keys, ("rounds", "concurrency"), text)
            return
        for key, number in (("goal", rounds.goal), ("quorum", None if rounds.goal else rounds.quorum)):
            if (rounds.barrier or key == "quorum") and number is not None and number > self.cohort:
                text = f"{key} {number} is out of reach of a cohort of {self.cohort} out of {clients} clients"
                yield Clash(keys, ("rounds", key), text)
