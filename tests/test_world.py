"""From the keys of a scenario to the links between its clients and its server, and the time of a round by hand."""

import json
import math
from pathlib import Path

import pytest
import torch

from fedemu import experiment
from fedemu.clock import RealClock
from fedemu.codecs.bf16 import bf16
from fedemu.codecs.int8 import int8
from fedemu.compute.inline import inline
from fedemu.errors import ScenarioError
from fedemu.events import TargetReached, TrainingFinished, TrainingStarted, TransferEnded
from fedemu.learning import Recipe
from fedemu.links._base import Sending, Way
from fedemu.links.tcp.none import none
from fedemu.net._pb import federation_pb2 as pb
from fedemu.net.delivery import Exchange
from fedemu.net.messages import Message
from fedemu.scenario import load
from fedemu.world import World

SCENARIO = """\
name: world
dataset: {{kind: digits, examples: 100}}
partition: {{kind: iid}}
model: {{kind: softmax}}
strategy: {{kind: fedavg}}
clients:
  phones:
    count: {count}
    device: {{kind: constant, per_example: 10ms}}
    link: {link}
server: {{link: {server}}}
stop: {{rounds: {rounds}}}
"""

ASSIGNMENT = pb.Assignment(round=1, turn=1, attempt=1)
MODEL = torch.zeros(650)
"""Softmax regression on 64 pixels and 10 classes: 650 numbers."""
DOWN = Message(pb.Task(assignment=ASSIGNMENT, version=0), {"model": MODEL}).size
_UPDATE = pb.Update(assignment=ASSIGNMENT, version=0, num_examples=100, num_steps=4, train_loss=1.0, squared_loss=1.0)
UP = Message(_UPDATE, {"delta": MODEL}).size
TRAINING = 100 * 10e-3


def cell(tmp_path: Path, *, link="{}", server="{}", count=1, rounds=1):
    path = tmp_path / "world.yaml"
    path.write_text(SCENARIO.format(link=link, server=server, count=count, rounds=rounds))
    return load(path).cells[0]


def seconds(tmp_path: Path, **keys) -> float:
    """Return how long a run takes."""
    with inline()() as compute:
        return experiment.run(cell(tmp_path, **keys), compute)["emulated_seconds"]


@pytest.fixture
def paths(tmp_path: Path):
    """Gives the two paths of the first client, as the world makes them, by direction."""

    def build(*, apart=False, **keys):
        scenario = cell(tmp_path, **keys)
        clock, learning = RealClock(), Recipe(json.dumps(scenario.resolved))()
        world = World(scenario.scenario, learning, clock, [].append, None if apart else Exchange(clock))
        view = next(iter(world.views.values()))
        channels = {way: world.behind(view, way, None) for way in ("down", "up")}
        return {way: (channel._path, list(channel._inbound)) for way, channel in channels.items()}

    return build


BOTH = {
    "link": "{delay: 40ms, up: {rate: 1Mbit/s, delay: 60ms}, down: {rate: 8Mbit/s}}",
    "server": "{delay: 5ms, up: {rate: 2Mbit/s}, down: {rate: 4Mbit/s}}",
}


def test_a_direction_crosses_the_senders_up_and_the_receivers_down(paths) -> None:
    """The client's up meets the server's down; the narrower pipe of each pair is 1 and 2 Mbit/s."""
    up, down = (paths(**BOTH)[way][0] for way in ("up", "down"))
    assert list(up.route.pipes) == ["phones/0 up", "server down"]
    assert list(down.route.pipes) == ["phones/0 down", "server up"]
    assert (up.way(0).rate, down.way(0).rate) == (1e6, 2e6)


def test_the_round_trip_has_both_delays_and_the_servers_twice(paths) -> None:
    """60 + 40 ms of the client's, 5 + 5 ms of the server's; the same seen from either end."""
    assert [path.way(0).rtt for path, _ in paths(**BOTH).values()] == pytest.approx([0.11, 0.11], abs=1e-12)


def test_only_what_the_client_sends_stalls(paths) -> None:
    """The update is late, not the task; delay and server delay hold up both."""
    stages = {
        way: ([name for name, _ in path.way(0).departure], [name for name, _ in path.way(0).arrival])
        for way, (path, _) in paths(
            link="{delay: 1ms, drop: 1%, stall: {probability: 50%, duration: 1s}}", server="{delay: 1ms}"
        ).items()
    }
    assert stages == {
        "up": (["stall"], ["delay", "server delay", "drop"]),
        "down": ([], ["delay", "server delay", "drop"]),
    }


def test_a_weight_is_a_share_of_a_full_pipe(tmp_path: Path) -> None:
    """One pipe for two clients, weights 3 and 1: while both send, one has three quarters of it.

    Equal bytes: the first is done after 4/3 of the time alone, the other after twice the time alone.
    """
    path = tmp_path / "weights.yaml"
    text = SCENARIO.format(link="{weight: 3}", server="{down: {rate: 1Mbit/s}}", count=1, rounds=1)
    path.write_text(
        text.replace("  phones:", "  pads: {count: 1, device: {kind: constant, per_example: 10ms}}\n  phones:")
    )
    ends = {}
    with inline()() as compute:
        experiment.run(
            load(path).cells[0],
            compute,
            observers=[lambda e: ends.update({e.group: e.at - e.began}) if isinstance(e, TransferEnded) else None],
        )
    alone = 8 * UP / 1e6
    assert ends == pytest.approx({"phones": 4 / 3 * alone, "pads": 2 * alone}, abs=1e-6)


def test_an_ideal_link_has_nothing_in_it(paths) -> None:
    """No pipe, no stage, no TCP."""
    for path, inbound in paths().values():
        assert (list(path.route.pipes), path.way(0), list(inbound)) == ([], Way(), [])


def test_a_client_without_a_rate_has_no_tcp_behind_a_servers_pipe(paths) -> None:
    """One burst of as many bytes as there are; with a rate of its own the headers are on it."""
    path = paths(server="{rate: 1Mbit/s}")["up"][0]
    assert list(path.route.pipes) == ["server down"]
    sending = Sending(size=1000, at=0.0, rate=1e6, rtt=0.1)
    assert path.tcp().bursts(sending, None) == none().bursts(sending, None)
    path = paths(link="{rate: 1Mbit/s}")["up"][0]
    assert sum(burst.size for burst in path.tcp().bursts(sending, None)) == 1000 + 2 * 66


def test_clients_elsewhere_cross_the_servers_pipe_where_they_arrive(paths) -> None:
    """A client in a process of its own cannot know who else is on it; what the server sends, it knows."""
    apart = paths(apart=True, **BOTH)
    assert list(apart["up"][0].route.pipes) == ["phones/0 up"]
    assert apart["up"][1] == []
    assert list(apart["down"][0].route.pipes) == ["phones/0 down", "server up"]
    assert apart["down"][1] == ["server down"]


def test_of_a_link_that_a_kernel_shapes_only_what_others_share_is_emulated(tmp_path: Path) -> None:
    """The server's pipes and its delay; TCP loses nothing, so that no try is ever given up."""
    scenario = cell(
        tmp_path, link="{delay: 40ms, rate: 1Mbit/s, burst: 9kB, loss: 1%, weight: 2}", server=BOTH["server"]
    )
    learning, told = Recipe(json.dumps(scenario.resolved))(), []
    world = World(scenario.scenario, learning, RealClock(), told.append, None)
    seat = world.seats[0].kernel
    assert (seat.retry.attempts, seat.retry.timeout, seat.kernel) == (1, math.inf, None)
    for direction, end in (("down", seat.behind(None)), ("up", world.behind(seat.view, "up", None, kernel=True))):
        path = end._path
        (_, way), *later = path.periods
        assert (later, path.bucket, path.spells, path.tcp.__self__.kind) == ([], None, None, "none")
        assert ([name for name, _ in way.arrival], way.departure, way.loss) == (["server delay"], (), None)
        assert (path.route.pipes, path.route.weight) == (("server up",) if direction == "down" else (), 2.0)
        assert end._inbound == (["server down"] if direction == "down" else ())
    assert World(scenario.scenario, learning, RealClock(), told.append, Exchange(RealClock())).seats[0].kernel is None


def test_a_round_takes_what_its_formula_says(tmp_path: Path) -> None:
    """Task: 40 ms + 8 DOWN / 2 Mbit/s; training 1 s; update: 40 ms + 8 UP / 1 Mbit/s."""
    link = "{delay: 40ms, tcp: none, up: {rate: 1Mbit/s}, down: {rate: 2Mbit/s}}"
    expected = 0.04 + 8 * DOWN / 2e6 + TRAINING + 0.04 + 8 * UP / 1e6
    assert seconds(tmp_path, link=link) == pytest.approx(expected, abs=1e-6)


def test_the_servers_delay_counts_both_ways(tmp_path: Path) -> None:
    """25 ms there and 25 ms back on top of the training."""
    assert seconds(tmp_path, server="{delay: 25ms}") == pytest.approx(TRAINING + 0.05, abs=1e-9)


def test_overrides_in_a_direction_win(tmp_path: Path) -> None:
    """10 ms down and 300 ms up, not twice the 100 ms beside them."""
    link = "{delay: 100ms, up: {delay: 300ms}, down: {delay: 10ms}}"
    assert seconds(tmp_path, link=link) == pytest.approx(TRAINING + 0.31, abs=1e-9)


def test_a_certain_stall_delays_the_update_once_a_round(tmp_path: Path) -> None:
    """4 s on each of two rounds of 1 s."""
    link = "{stall: {probability: 100%, duration: 4s}}"
    assert seconds(tmp_path, link=link, rounds=2) == 2 * (TRAINING + 4)


def test_clients_share_the_servers_pipe(tmp_path: Path) -> None:
    """Two clients of 50 examples: 0.5 s of training, and each message at half of 1 Mbit/s."""
    link, server = "{tcp: none, rate: 100Mbit/s}", "{rate: 1Mbit/s}"
    expected = 2 * 8 * DOWN / 1e6 + TRAINING / 2 + 2 * 8 * UP / 1e6
    assert seconds(tmp_path, link=link, server=server, count=2) == pytest.approx(expected, abs=1e-6)


def test_the_servers_up_carries_tasks_alone(tmp_path: Path) -> None:
    """A slow server.up holds up tasks alone: 8 DOWN / 10 kbit/s, two seconds, and nothing on the way back."""
    expected = 8 * DOWN / 1e4 + TRAINING
    assert seconds(tmp_path, server="{up: {rate: 10kbit/s}}") == pytest.approx(expected, abs=1e-6)


# --- codecs


def events_of(path: Path, *sets: tuple[str, str]):
    """Run a scenario; return its events and its result."""
    events = []
    (cell,) = load(path, sets).cells
    with experiment.workers(cell.scenario) as compute:
        result = experiment.run(cell, compute, observers=[events.append])
    return events, result


@pytest.fixture
def coded(tmp_path: Path) -> Path:
    """Int8 up and bf16 down for phones, the former a million times as slow; laptops send every number as it is."""
    path = tmp_path / "coded.yaml"
    text = SCENARIO.format(link="{tcp: none, rate: 8Mbit/s}", server="{}", count=1, rounds=1)
    none = "{kind: none, slowdown: 0}"
    codecs = f"{{up: {none}, down: {none}}}"
    laptops = f"  laptops: {{count: 1, codec: {codecs}, device: {{kind: constant, per_example: 10ms}}}}\n"
    codec = "codec: {up: {kind: int8, slowdown: 1e6}, down: {kind: bf16, slowdown: 500000}}\n"
    path.write_text(text.replace("clients:\n", f"{codec}clients:\n{laptops}"))
    return path


def test_coding_takes_the_device_its_slowdown_and_saves_the_link_its_bytes(coded: Path) -> None:
    """50 examples are 0.5 s, and then what the codecs take for 650 numbers; 1 MB/s carries what they weigh."""
    events, _ = events_of(coded)
    coding = 650 * (1e6 * int8().cost.encode + 5e5 * bf16().cost.decode)
    trained = {e.group: e.duration for e in events if isinstance(e, TrainingFinished)}
    assert trained == pytest.approx({"phones": 0.5 + coding, "laptops": 0.5}, abs=1e-9)
    ended = {(e.group, e.direction): e for e in events if isinstance(e, TransferEnded)}
    task, update = (ended["laptops", direction].bytes for direction in ("down", "up"))
    assert ended["phones", "up"].bytes == update - 4 * 650 + 4 + 650
    assert ended["phones", "down"].bytes == task - 4 * 650 + 2 * 650
    for direction in ("down", "up"):
        transfer = ended["phones", direction]
        assert transfer.at - transfer.began == pytest.approx(transfer.bytes / 1e6, abs=2e-9)


def test_a_slowdown_of_0_takes_no_time(coded: Path) -> None:
    """The bytes are the same."""
    events, _ = events_of(coded, ("codec.up.slowdown", "0"), ("codec.down.slowdown", "0"))
    trained = [e.duration for e in events if isinstance(e, TrainingFinished)]
    assert trained == pytest.approx([0.5, 0.5], abs=1e-12)


@pytest.mark.parametrize("transport", ["memory", "grpc"])
def test_a_compressed_run_is_the_same_wherever_it_runs(coded: Path, transport: str) -> None:
    """Differences down, the largest tenth with memory up, both through zstd: in a thread, and in a pool's processes."""
    sets = [
        ("codec", "{up: {kind: topk, ratio: 10%, zstd: 3}, down: {kind: topk, ratio: 50%, delta: true, zstd: 1}}"),
        ("stop.rounds", "4"),
        ("transport", transport),
    ]
    outcomes = [
        events_of(coded, *sets, ("compute", compute))[1] for compute in ("{kind: inline}", "{kind: pool, workers: 2}")
    ]
    assert outcomes[0]["digest"] == outcomes[1]["digest"]
    assert outcomes[0]["final"] == outcomes[1]["final"]
    _, plain = events_of(coded, *sets[1:], ("codec", "{}"), ("compute", "{kind: inline}"))
    assert outcomes[0]["bytes"]["up"] < plain["bytes"]["up"]
    assert outcomes[0]["digest"] != plain["digest"]


@pytest.mark.parametrize(
    ("up", "feedback"),
    [
        ("{kind: topk}", True),
        ("{kind: topk, feedback: false}", False),
        ("{kind: int8}", False),
        ("{kind: int8, feedback: true}", True),
    ],
)
def test_codecs_that_leave_most_out_have_a_memory_unless_it_is_said(coded: Path, up: str, feedback: bool) -> None:
    """And the others have none, unless it is said."""
    learning = Recipe(json.dumps(load(coded, [("codec.up", up)]).cells[0].resolved))()
    assert learning.coding("phones", "up").feedback == feedback
    assert learning.coding("laptops", "up").feedback is False


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_groups_codec_wins_in_its_own_direction_alone(coded: Path, direction: str) -> None:
    """Fp16 one way; the other way the scenario's."""
    key = f"clients.phones.codec.{direction}"
    learning = Recipe(json.dumps(load(coded, [(key, "{kind: fp16}")]).cells[0].resolved))()
    lengths = {way: learning.coding("phones", way).codec.length(1000) for way in ("up", "down")}
    assert lengths == {"up": 1004, "down": 2000} | {direction: 2000}


@pytest.mark.parametrize("where", ["codec", "clients.phones.codec"])
def test_a_model_that_a_codec_would_ruin_is_a_fault(coded: Path, where: str) -> None:
    """As a difference it may travel so."""
    with pytest.raises(ScenarioError) as caught:
        load(coded, [(f"{where}.down", "{kind: topk}")])
    assert [(fault.key, fault.text) for fault in caught.value.faults] == [
        (f"{where}.down", "topk would ruin a model; add delta: true, or choose another codec")
    ]
    assert len(load(coded, [(f"{where}.down", "{kind: topk, delta: true}")]).cells) == 1


# --- conditions


def test_phones_train_only_while_they_are_charged_and_on_a_network_that_costs_nothing(tmp_path: Path) -> None:
    """Charged until 200 s, unmetered from 95 s: found at 100 s, they work 25 s and again; 1 MB/s carries an update."""
    path = tmp_path / "phones.yaml"
    text = SCENARIO.format(link="{tcp: none, up: {rate: 8Mbit/s}}", server="{}", count=2, rounds=50)
    conditions = "{charging: {kind: always, until: 200s}, unmetered: {kind: always, after: 95s}}"
    never = "{count: 2, conditions: {idle: {kind: always, after: 1h}}}"
    text = text.replace("10ms}\n", f"1s}}\n    conditions: {conditions}\n").replace(
        "clients:\n", f"rounds: {{select: {{kind: eligible}}}}\nclients:\n  laptops: {never}\n"
    )
    path.write_text(text.replace("rounds: 50", "time: 400s"))
    events, result = events_of(path)
    assert result["emulated_seconds"] == 400.0
    trainings = [e for e in events if isinstance(e, TrainingStarted)]
    assert {e.client for e in trainings} == {"phones/0", "phones/1"}
    assert [int(e.at) for e in trainings if e.client == "phones/0"] == [100, 125, 150, 175]
    assert trainings[0].at == 100.0
    uploads = [e for e in events if isinstance(e, TransferEnded) and e.direction == "up"]
    assert len(uploads) == 8
    for upload in uploads:
        assert upload.at - upload.began == pytest.approx(upload.bytes / 1e6, abs=2e-9)


def test_a_selector_may_require_less(tmp_path: Path) -> None:
    """Only to be idle, which everybody is who does not say otherwise: the round begins at once."""
    path = tmp_path / "phones.yaml"
    text = SCENARIO.format(link="{}", server="{}", count=2, rounds=1)
    select = "rounds: {select: {kind: eligible, require: [idle]}}\n"
    conditions = "\n    conditions: {charging: {kind: always, after: 1h}}\n"
    path.write_text(text.replace("clients:\n", f"{select}clients:\n").replace("10ms}\n", f"10ms}}{conditions}"))
    events, _ = events_of(path)
    assert [e.at for e in events if isinstance(e, TrainingStarted)] == [0.0, 0.0]


def test_targets_stand_in_the_result_and_end_nothing(tmp_path: Path) -> None:
    """Two are reached on the way, one is not: all six rounds are run, and each is told with its time."""
    path = tmp_path / "targets.yaml"
    text = SCENARIO.format(link="{}", server="{}", count=2, rounds=6)
    path.write_text(text + "targets: {accuracy: [90%, 15%, 5%]}\ntraining: {lr: 0.1}\n")
    events, result = events_of(path)
    told = [(e.accuracy, e.round, e.at) for e in events if isinstance(e, TargetReached)]
    assert [accuracy for accuracy, _, _ in told] == [0.05, 0.15]
    assert result["stopped_by"] == "rounds"
    reached = {aim["accuracy"]: aim for aim in result["targets"]}
    assert [aim["accuracy"] for aim in result["targets"]] == [0.9, 0.15, 0.05]
    assert [reached[accuracy]["reached"] for accuracy in (0.05, 0.15, 0.9)] == [True, True, False]
    assert [(a, reached[a]["round"], reached[a]["time"]) for a in (0.05, 0.15)] == told
