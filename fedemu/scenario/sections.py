"""The keys of a scenario: a frozen, validated `Scenario` and its sections.

Every key of the contract that this version does not have is listed in `not_built`, so that it is a fault that says so.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field

from fedemu.compute._buffer import BUFFER
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


class LocalKeys(Keys):
    """How one local training goes."""

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


class ChangeKeys(LocalKeys):
    """What is different from a round on."""

    round: Annotated[int, Field(ge=2)]
    """The first round of which it holds."""


class TrainingKeys(LocalKeys):
    """How clients train; in a group, the keys that are different there."""

    lr_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """What the learning rate is multiplied with after each round."""
    epochs_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """What the epochs are multiplied with after each round, rounded, but at least 1."""
    schedule: list[ChangeKeys] = Field(default=[])
    """Keys that are different from a round on; of several entries that hold, the last one counts."""
    budget: Annotated[Duration, Field(gt=0)] | None = None
    """Time for a local training: a client does the whole epochs that fit, at least one; default no limit."""

    def in_round(self, round: int) -> Training:
        """Return how clients train in a round, from 1 on."""
        now: dict[str, Any] = {key: getattr(self, key) for key in LocalKeys.model_fields}
        for change in self.schedule:
            if change.round <= round:
                now |= change.model_dump(exclude_unset=True, exclude={"round"})
        now["lr"] *= self.lr_decay ** (round - 1)
        now["epochs"] = max(1, math.floor(now["epochs"] * self.epochs_decay ** (round - 1) + 0.5))
        return Training(**now)


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
    tick: Annotated[Duration, Field(gt=0)] | None = None
    """Time that a round takes, whatever comes, and another without a quorum; instead of goal and deadline."""
    barrier: bool = True
    """True is synchronous; false lets clients start again as they finish."""
    late: Literal["cancel", "drop", "keep"] | None = None
    """What becomes of those at work when a round closes; default cancel, but keep with a tick or without a barrier."""

    def cohort(self, clients: int) -> int:
        """Return how many of that many clients are at work at once."""
        if self.concurrency is not None:
            return self.concurrency
        return max(1, round((1.0 if self.fraction is None else self.fraction) * clients))

    @property
    def for_the_late(self) -> Literal["cancel", "drop", "keep"]:
        """`late`, or its default."""
        return self.late or ("cancel" if self.barrier and self.tick is None else "keep")

    def clashes(self) -> Iterator[Clash]:
        """Yield numbers that no round can meet."""
        if self.fraction is not None and self.concurrency is not None:
            keys = frozenset({"fraction", "concurrency"})
            yield Clash(keys, ("concurrency",), "fraction says it already; write one of the two")
        if self.barrier and self.goal is not None and self.concurrency is not None and self.goal > self.concurrency:
            text = f"goal {self.goal} is out of reach of concurrency {self.concurrency}"
            yield Clash(frozenset({"goal", "concurrency", "barrier"}), ("goal",), text)
        for key in ("goal", "deadline"):
            if self.tick is not None and getattr(self, key) is not None:
                yield Clash(frozenset({"tick", key}), (key,), "tick says when a round closes; write one of the two")
        enough = None if self.tick else self.goal or self.concurrency
        if enough is not None and self.quorum > enough:
            text = (
                f"quorum {self.quorum} is above {'goal' if self.goal else 'concurrency'} {enough}, which closes a round"
            )
            yield Clash(frozenset({"quorum", "goal", "concurrency"}), ("quorum",), text)


class StragglerKeys(Keys):
    """Trainings that are slow by chance."""

    probability: Ratio
    """Chance that a training is slow."""
    factor: Annotated[float, Field(ge=1)] | None = None
    """How many times as long it takes then."""
    speed: Annotated[list[Annotated[Ratio, Field(gt=0)]], Field(min_length=2, max_length=2)] | None = None
    """Or: the share of its speed that is left then, uniform between two values, e.g. [5%, 100%]."""

    def clashes(self) -> Iterator[Clash]:
        """Yield what leaves open how slow."""
        keys = frozenset({"factor", "speed"})
        if (self.factor is None) == (self.speed is None):
            yield Clash(keys, (), "how slow is not clear; write factor or speed, one of the two")
        elif self.speed is not None and self.speed[0] > self.speed[1]:
            yield Clash(keys, ("speed",), f"{self.speed[0]:g} is above {self.speed[1]:g}; write the lower one first")


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
        None if straggler is None else _straggler(straggler),
        None if memory is None else Memory(memory),
        None if energy is None else Energy(**energy.model_dump()),
    )


def _straggler(keys: StragglerKeys) -> Straggler:
    low, high = keys.speed or (1.0, 1.0)
    return Straggler(keys.probability, keys.factor or 1.0, (low, high))


class CodecKeys(Keys):
    """What the house reads beside a codec's own keys."""

    zstd: Annotated[int, Field(ge=1, le=22)] | None = None
    """Level of zstd that the bytes are compressed with; default not at all."""
    slowdown: Annotated[float, Field(ge=0)] = 1.0
    """How many times as long the device takes for it as the machine where the codec was measured; 0 takes no time."""


class UpKeys(CodecKeys):
    """What the house reads beside the codec of updates."""

    feedback: bool | None = None
    """Add what an update lost to the next one; default true for codecs that leave most of it out."""


class DownKeys(CodecKeys):
    """What the house reads beside the codec of models."""

    delta: bool = False
    """Send the difference to the last model that the client has acknowledged, as it has it."""


class CodecPair(Keys):
    """How vectors travel in fewer bytes."""

    up: Annotated[Kind, KindOf("codecs", house=UpKeys)] | None = None
    """For updates; default as they are."""
    down: Annotated[Kind, KindOf("codecs", house=DownKeys)] | None = None
    """For models; default as they are."""

    def clashes(self) -> Iterator[Clash]:
        """Yield codecs that would ruin a model."""
        if self.down is not None and not self.down.house["delta"] and self.down.build().sparse:
            text = f"{self.down.kind} leaves most of a model out; add delta: true, or choose another codec"
            yield Clash(frozenset({"down"}), ("down",), text)


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
    codec: CodecPair | None = None
    """Default the scenario's."""
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
    variants: (
        Annotated[
            dict[Annotated[str, _named("variant")], Annotated[dict[str, Any], Field(min_length=1)]], Field(min_length=1)
        ]
        | None
    ) = None
    """Bundles of dotted keys and their values, by name: each is a run of its own."""
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

    def training_in(self, group: str) -> TrainingKeys:
        """Return how the clients of a group train: its own keys win."""
        own = self.clients[group].training
        return self.training.model_copy(update={key: getattr(own, key) for key in own.model_fields_set})

    def codec_in(self, group: str) -> CodecPair:
        """Return the codecs of a group: its own, or the scenario's."""
        return self.clients[group].codec or self.codec

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
