"""Scenario files: their faults, replacements, grids and schema."""

import itertools
import json
import pickle
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, Node

from fedemu.errors import Fault, ScenarioError
from fedemu.links._base import Retry
from fedemu.scenario import as_yaml, foreign, load, parse, schema
from fedemu.scenario.source import read
from fedemu.types import Training

SHIPPED = sorted((Path(__file__).parents[2] / "scenarios").rglob("*.yaml"))

BASE = """\
# Why?
name: base
dataset: {kind: digits}
partition: {kind: iid}
model: {kind: softmax}
strategy: {kind: fedavg}
training:
  lr: 0.1
rounds:
  fraction: 50%
clients:
  phones:
    count: 16
    link:
      delay: 40ms
      up: {rate: 5Mbit/s}
  laptops:
    count: 4
server:
  link: {up: {rate: 1Gbit/s}}
stop:
  rounds: 3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "base.yaml"
    path.write_text(BASE)
    return path


def faults(path: Path, *sets: tuple[str, str], **options: Any) -> list[Fault]:
    """Return what is wrong, with the file's name instead of its path."""
    with pytest.raises(ScenarioError) as caught:
        load(path, sets, **options)
    return [Fault(Path(f.file).name, f.line, f.key, f.text) for f in caught.value.faults]


def edited(path: Path, *edits: tuple[str, str]) -> Path:
    """Replace text in the file, each exactly once."""
    text = path.read_text()
    for old, new in edits:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path.write_text(text)
    return path


def test_a_scenario_is_read_to_the_number(file: Path) -> None:
    """50 % of 20 clients are a cohort of 10; 40 ms are 0.04 s; 5 Mbit/s are 5e6 bit/s."""
    experiment = load(file)
    assert (experiment.name, experiment.question, experiment.axes, experiment.is_grid) == ("base", "Why?", (), False)
    (cell,) = experiment.cells
    s = cell.scenario
    assert (cell.path, cell.seed, cell.values) == ("", 1, {})
    assert (s.num_clients, s.cohort, s.examples, s.clock, s.transport) == (20, 10, None, "virtual", "memory")
    assert s.clients["phones"].link.way("up").rate == 5e6
    assert s.clients["phones"].link.way("up").delay == s.clients["phones"].link.way("down").delay == 0.04
    assert s.clients["phones"].link.way("down").rate is None
    assert s.clients["laptops"].link.way("up").held_up is None
    assert (s.server.link.way("up").rate, s.server.link.way("down").rate) == (1e9, None)
    assert s.training_in("phones").in_round(1) == Training(epochs=1, batch_size=32, lr=0.1, momentum=0.0)
    assert pickle.loads(pickle.dumps(s)) == s


def test_a_group_trains_its_own_way_where_it_says_so(file: Path) -> None:
    """Keys that the group does not name stay the scenario's; full is no batch size."""
    edited(file, ("    count: 4\n", "    count: 4\n    training: {epochs: 3, batch_size: full}\n"))
    s = load(file).cells[0].scenario
    assert s.training_in("laptops").in_round(1) == Training(epochs=3, batch_size=None, lr=0.1)
    assert s.training_in("phones").in_round(9) == Training(epochs=1, batch_size=32, lr=0.1)


def test_a_name_that_is_not_written_is_the_files(file: Path) -> None:
    """base.yaml is `base`, and stays so in the run directory."""
    edited(file, ("name: base\n", ""))
    (cell,) = load(file).cells
    assert cell.scenario.name == cell.resolved["name"] == "base"


@pytest.mark.parametrize(
    ("link", "up", "down"),
    [
        ("{rate: 1Mbit/s, up: {rate: 2Mbit/s}}", {"rate": 2e6}, {"rate": 1e6}),
        (
            "{delay: 40ms, jitter: 10ms, distribution: uniform, down: {delay: 20ms}}",
            {"delay": 0.04, "jitter": 0.01, "distribution": "uniform"},
            {"delay": 0.02, "jitter": 0.01, "distribution": "uniform"},
        ),
    ],
)
def test_a_direction_overrides_what_holds_for_both(file: Path, link: str, up: Any, down: Any) -> None:
    """Keys beside up and down hold for both."""
    s = load(file, [("clients.laptops.link", link)]).cells[0].scenario
    for direction, keys in (("up", up), ("down", down)):
        way = s.clients["laptops"].link.way(direction)  # type: ignore[arg-type]
        assert way.model_dump(exclude_none=True) == keys


def test_words_and_mappings_say_the_same(file: Path) -> None:
    """A plain drop is the request's; tcp is a kind; retry: none is none; the default is five tries."""
    link = "{rate: 1Mbit/s, drop: 2%, tcp: slow-start, down: {drop: {request: 0.02}, tcp: {model: slow-start}}}"
    s = load(file, [("clients.laptops.link", link), ("clients.phones.link.retry", "none")]).cells[0].scenario
    up, down = (s.clients["laptops"].link.way(d) for d in ("up", "down"))
    assert up == down
    assert up.drop is not None
    assert up.drop.params == {"request": 0.02, "response": 0.0}
    assert up.tcp is not None
    assert up.tcp.params == {"iw": 10, "memory": True}
    assert s.clients["phones"].link.retries is None
    assert s.clients["laptops"].link.retries == Retry()


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "text"),
    [
        # keys
        ("rounds:\n  f", "runds:\n  f", 9, "runds", "'runds' is not a key here; did you mean 'rounds'?"),
        ("strategy", "stratgy", 6, "stratgy", "'stratgy' is not a key here; did you mean 'strategy'?"),
        ("rounds: 3", "rounds: 3\nzzz: 1", 23, "zzz", "'zzz' is not a key here; there are name, seed, clock"),
        ("fraction: 50%", "fraction:", 10, "rounds.fraction", "no value; write one or leave the key out"),
        ("name: base", "name: base\nname: b", 3, "name", "'name' stands here twice, first on line 2"),
        (
            "    count: 4",
            "    link: {}",
            17,
            "clients.laptops.count",
            "missing; expected number of clients in the group",
        ),
        ("strategy: {kind: fedavg}\n", "", 1, "strategy", "missing; expected how updates become a model"),
        ("{kind: fedavg}", "{kind: fedagv}", 6, "strategy.kind", "'fedagv' is not a strategy; did you mean 'fedavg'?"),
        ("{kind: fedavg}", "fedavg", 6, "strategy", "'fedavg' is not a mapping; write {kind: fedavg}"),
        ("{kind: iid}", "{}", 4, "partition.kind", "missing; expected one of copy, "),
        ("{kind: iid}", "{kind: dirichlet}", 4, "partition.alpha", "missing; expected concentration"),
        # values
        ("count: 16", "count: '16'", 13, "clients.phones.count", "'16' is not a whole number"),
        ("count: 16", "count: true", 13, "clients.phones.count", "true is not a whole number"),
        ("count: 16", "count: 0", 13, "clients.phones.count", "0 is out of range; expected at least 1"),
        ("count: 16", "count: 2.5", 13, "clients.phones.count", "2.5 is not a whole number"),
        ("lr: 0.1", "lr: 1_0", 8, "training.lr", "'1_0' is not a number"),
        ("lr: 0.1", "lr: .nan", 8, "training.lr", "nan is not a finite number"),
        ("lr: 0.1", "momentum: 1", 8, "training.momentum", "1 is out of range; expected less than 1"),
        ("lr: 0.1", "batch_size: all", 8, "training.batch_size", "'all' is neither a whole number nor full"),
        ("lr: 0.1", "batch_size: 0", 8, "training.batch_size", "0 is out of range; expected at least 1"),
        ("  lr: 0.1", "  [1]", 7, "training", "[1] is not a mapping; write key: value"),
        ("delay: 40ms", "delay: 40", 15, "clients.phones.link.delay", "40 has no unit of ns, us, ms"),
        ("5Mbit/s", "5MB", 16, "clients.phones.link.up.rate", "'5MB' has no unit of bit/s, kbit/s, Mbit/s, Gbit/s"),
        ("5Mbit/s", "0bit/s", 16, "clients.phones.link.up.rate", "'0bit/s' is out of range; expected more than 0"),
        ("50%", "150%", 10, "rounds.fraction", "'150%' is outside of 0..1; write e.g. 60% or 0.6"),
        ("50%", "50%\n  late: wait", 11, "rounds.late", "'wait' is not one of cancel, drop or keep"),
        ("50%", "50%\n  barrier: no", 11, "rounds.barrier", "'no' is neither true nor false"),
        ("50%", "50%\n  deadline: 0s", 11, "rounds.deadline", "'0s' is out of range; expected more than 0"),
        ("name: base", "name: 3", 2, "name", "3 is not a text; put it in quotes"),
        ("name: base", "seed: -1", 2, "seed", "-1 is out of range; expected at least 0"),
        ("name: base", "clock: wall", 2, "clock", "'wall' is not one of virtual or real"),
        ("name: base", "evaluate: {every: 60s}", 2, "evaluate.every", "'60s' is not built yet"),
        ("name: base", "evaluate: {every: 1.5}", 2, "evaluate.every", "1.5 is neither a number of rounds nor end"),
        ("name: base", "repeat: 0", 2, "repeat", "0 is out of range; expected at least 1"),
        ("name: base", "repeat: 1000000", 2, "repeat", "1000000 is out of range; expected at most 10000"),
        ("phones:", "my phones:", 12, "clients.my phones", "'my phones' cannot name a group; write letters, digits"),
        ("delay: 40ms", "retry: 3", 15, "clients.phones.link.retry", "3 is neither none nor a mapping"),
        ("delay: 40ms", "drop: often", 15, "clients.phones.link.drop", "'often' is not a ratio; write e.g. 60% or 0.6"),
        ("delay: 40ms", "stall: {duration: 3s}", 15, "clients.phones.link.stall.probability", "missing; expected"),
        ("{kind: digits}", "{kind: digits, examples: 0}", 3, "dataset.examples", "0 is out of range"),
        # what does not go together
        ("50%", "50%\n  concurrency: 4", 11, "rounds.concurrency", "fraction says it already; write one of the two"),
        ("fraction: 50%", "concurrency: 21", 10, "rounds.concurrency", "concurrency 21 is out of reach of 20 clients"),
        ("fraction: 50%", "concurrency: 8\n  goal: 10", 11, "rounds.goal", "goal 10 is out of reach of concurrency 8"),
        ("50%", "50%\n  goal: 11", 11, "rounds.goal", "goal 11 is out of reach of a cohort of 10 out of 20 clients"),
        ("50%", "50%\n  quorum: 11", 11, "rounds.quorum", "quorum 11 is out of reach of a cohort of 10 out of 20"),
        ("50%", "50%\n  goal: 4\n  quorum: 5", 12, "rounds.quorum", "quorum 5 is above goal 4, which closes a round"),
        ("rounds: 3", "accuracy: 60%", 21, "stop", "no end is certain, as the target may never be reached; add rounds"),
        ("delay: 40ms", "jitter: 5ms", 15, "clients.phones.link.jitter", "jitter 0.005s without delay"),
        (
            "delay: 40ms",
            "delay: 40ms\n      jitter: 30ms\n      distribution: normal",
            16,
            "clients.phones.link.jitter",
            "normal delay 40ms with jitter 30ms reaches below zero; expected a jitter of at most 10ms",
        ),
        (
            "{rate: 5Mbit/s}",
            "{jitter: 90ms, distribution: uniform}",
            16,
            "clients.phones.link.up.jitter",
            "uniform delay",
        ),
        ("delay: 40ms", "distribution: uniform", 15, "clients.phones.link.distribution", "no meaning without jitter"),
        ("{rate: 5Mbit/s}", "{tcp: none}", 16, "clients.phones.link.up.tcp", "no meaning without rate"),
        ("count: 4", "count: 4\n    link: {tcp: none}", 19, "clients.laptops.link.tcp", "no meaning without rate"),
        ("name: base", "compute: {kind: inline, workers: 2}", 2, "compute.workers", "no meaning with inline"),
    ],
)
def test_a_fault_stands_at_its_line(file: Path, old: str, new: str, line: int, key: str, text: str) -> None:
    """One mistake, one fault; the line is counted by hand."""
    (fault,) = faults(edited(file, (old, new)))
    assert (fault.file, fault.line, fault.key) == ("base.yaml", line, key)
    assert fault.text.startswith(text)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name: base", "aggregate: {kind: krum, f: 20%}"),
        ("name: base", "topology: {kind: ring}"),
        ("    count: 4", "    count: 4\n    attack: {kind: flip}"),
        ("    count: 4", "    count: 4\n    submodel: {width: 25%}"),
        ("    count: 4", "    count: 4\n    data: {share: 5%}"),
        ("server:\n", "server:\n  device: {kind: constant}\n"),
        ("name: base", "evaluate: {per_client: true}"),
    ],
)
def test_a_promised_key_that_is_not_built_says_so(file: Path, old: str, new: str) -> None:
    """contract.md and link-model.md promise them; none is ignored."""
    (fault,) = faults(edited(file, (old, new)))
    assert fault.text == f"{fault.key.rpartition('.')[2]!r} is not built yet"


def test_all_faults_come_at_once_in_the_order_of_the_file(file: Path) -> None:
    """Seven mistakes in seven lines, clashes among sound keys beside faulty ones."""
    edited(
        file,
        ("{kind: iid}", "{kind: idi}"),
        ("model: {kind: softmax}", "modle: {kind: softmax}"),
        ("lr: 0.1", "lr: true"),
        ("fraction: 50%", "concurrency: 30\n  deadline: 5"),
        ("delay: 40ms", "jitter: 5ms\n      limit: 10"),
    )
    assert [(f.line, f.key) for f in faults(file)] == [
        (4, "partition.kind"),
        (5, "modle"),
        (8, "training.lr"),
        (11, "rounds.deadline"),
        (16, "clients.phones.link.jitter"),
        (17, "clients.phones.link.limit"),
    ]


def test_without_a_barrier_a_goal_may_be_above_the_concurrency(file: Path) -> None:
    """Clients start again as they finish: eight of them bring ten updates (FedBuff)."""
    rounds = "{concurrency: 8, goal: 10, quorum: 9, barrier: false}"
    s = load(file, [("rounds", rounds)]).cells[0].scenario
    assert (s.cohort, s.rounds.goal, s.rounds.for_the_late) == (8, 10, "keep")


@pytest.mark.parametrize(
    ("fraction", "cohort"), [("50%", 10), ("12%", 2), ("13%", 3), ("0%", 1), ("1%", 1), ("100%", 20), ("1", 20)]
)
def test_a_cohort_is_the_rounded_fraction_and_at_least_one(file: Path, fraction: str, cohort: int) -> None:
    """max(1, round(fraction * 20)): 2.4 is 2, 2.6 is 3."""
    assert load(file, [("rounds.fraction", fraction)]).cells[0].scenario.cohort == cohort


def test_sets_replace_and_add(file: Path) -> None:
    """The last one wins; values are YAML 1.2; options are sets too."""
    sets = [
        ("clients.phones.link.delay", "70ms"),
        ("clients.phones.link.delay", "80ms"),
        ("strategy", "{kind: fedavg, weighting: uniform}"),
        ("stop.time", "1h"),
        ("training.lr", "1e-3"),
        ("server.link.down.rate", "2Gbit/s"),
        ("repeat", "2"),
    ]
    cells = load(file, sets, seed=7, clock="real", transport="grpc").cells
    assert [cell.path for cell in cells] == ["seed-7", "seed-8"]
    s = cells[0].scenario
    assert (s.seed, s.clock, s.transport, s.stop.time, s.training.lr) == (7, "real", "grpc", 3600.0, 0.001)
    assert s.clients["phones"].link.way("down").delay == 0.08
    assert s.strategy.params == {"weighting": "uniform", "server_lr": 1.0}
    assert s.server.link.way("down").rate == 2e9
    assert cells[0].resolved["clients"]["phones"]["link"]["delay"] == "80ms"


@pytest.mark.parametrize(
    ("key", "value", "fault_key", "text"),
    [
        (
            "clients.phons.link.delay",
            "80ms",
            "clients.phons.link.delay",
            "'phons' is not a group; did you mean 'phones'?",
        ),
        ("clients.phones.link.delay", "80", "clients.phones.link.delay", "80 has no unit of"),
        ("clients.phones.link.delya", "80ms", "clients.phones.link.delya", "'delya' is not a key here; did you mean"),
        ("rouds.goal", "3", "rouds", "'rouds' is not a key here; did you mean 'rounds'?"),
        ("stop.rounds.x", "3", "stop.rounds.x", "stop.rounds is 3, which has no keys"),
        ("stop..x", "3", "stop..x", "'stop..x' is not a dotted key; write e.g. rounds.deadline"),
        ("stop.rounds", "", "stop.rounds", "no value; write one or leave the key out"),
        ("stop.rounds", "[1", "stop.rounds", "expected ',' or ']'"),
        ("rounds.goal", "11", "rounds.goal", "goal 11 is out of reach of a cohort of 10"),
    ],
)
def test_a_faulty_set_is_blamed_on_the_command_line(
    file: Path, key: str, value: str, fault_key: str, text: str
) -> None:
    """The file is in order."""
    (fault,) = faults(file, (key, value))
    assert (fault.file, fault.line, fault.key) == ("--set", 1, fault_key)
    assert fault.text.startswith(text)


def test_a_faulty_option_is_blamed_on_itself(file: Path) -> None:
    """argparse would refuse the word too; the API has no argparse."""
    (fault,) = faults(file, clock="wall")
    assert (fault.file, fault.key) == ("--clock", "clock")


MATRIX = """\
matrix:
  clients.phones.link.up.rate: [1Mbit/s, 5Mbit/s]
  strategy: [{kind: fedavg}, {kind: fedavg, weighting: uniform}]
repeat: 2
"""


def test_a_matrix_spreads_into_every_cell_and_seed(file: Path) -> None:
    """2 rates x 2 strategies x 2 seeds, the last axis fastest."""
    file.write_text(BASE + MATRIX)
    experiment = load(file, seed=5)
    rate = "clients.phones.link.up.rate"
    assert experiment.axes == (rate, "strategy")
    assert experiment.is_grid
    assert [cell.path for cell in experiment.cells[:4]] == [
        f"{rate}=1Mbit-s,strategy=kind-fedavg/seed-5",
        f"{rate}=1Mbit-s,strategy=kind-fedavg/seed-6",
        f"{rate}=1Mbit-s,strategy=kind-fedavg-weighting-uniform/seed-5",
        f"{rate}=1Mbit-s,strategy=kind-fedavg-weighting-uniform/seed-6",
    ]
    last = experiment.cells[-1]
    assert len({cell.path for cell in experiment.cells}) == 8
    assert last.values == {rate: "5Mbit/s", "strategy": "{kind: fedavg, weighting: uniform}"}
    assert (last.seed, last.scenario.seed, last.resolved["seed"]) == (6, 6, 6)
    assert last.scenario.clients["phones"].link.way("up").rate == 5e6
    assert experiment.cells[0].scenario.clients["phones"].link.way("up").rate == 1e6
    assert not {"matrix", "repeat"} & last.resolved.keys()


def test_an_axis_that_reaches_inside_another_is_put_after_it(file: Path) -> None:
    """A mapping replaces the whole link; the dotted key then changes one of its keys, whatever their order."""
    file.write_text(
        BASE + "matrix:\n  clients.phones.link.delay: [1ms]\n  clients.phones.link: [{jitter: 2ms, rate: 1Mbit/s}]\n"
    )
    link = load(file).cells[0].scenario.clients["phones"].link
    assert (link.delay, link.jitter, link.rate, link.up.rate) == (0.001, 0.002, 1e6, None)


def test_an_axis_may_give_what_the_base_lacks(file: Path) -> None:
    """A stall without a probability is no stall; each cell has one."""
    edited(file, ("delay: 40ms", "stall: {duration: 3s}"))
    file.write_text(file.read_text() + "matrix: {clients.phones.link.stall.probability: [0%, 1]}\n")
    stalls = [cell.scenario.clients["phones"].link.stall for cell in load(file).cells]
    assert [stall.params["probability"] for stall in stalls if stall] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("axes", "line", "key", "text"),
    [
        ("{rounds.fraction: [10%, 200%, 300]}", 23, "rounds.fraction", "'200%' is outside of 0..1"),
        ("{rounds.fractoin: [10%]}", 23, "rounds.fractoin", "'fractoin' is not a key here; did you mean 'fraction'?"),
        ("{clients.phons.count: [1]}", 23, "clients.phons.count", "'phons' is not a group; did you mean 'phones'?"),
        ("\n  seed: [1]\n  rounds.fraction: []", 25, "matrix.rounds.fraction", "[] is empty; expected at least 1"),
        ("\n  seed: [1]\n  rounds.fraction: 10%", 25, "matrix.rounds.fraction", "'10%' is not a list; write [a, b]"),
        ("{}", 23, "matrix", "{} is empty; expected at least 1"),
        ("{rounds.fraction: [10%, 20%, 10%]}", 23, "matrix.rounds.fraction", "10% stands on this axis twice"),
        ("{repeat: [1, 2]}", 23, "matrix.repeat", "'repeat' cannot be an axis"),
        ("{rounds.goal: [10, 11]}", 23, "rounds.goal", "goal 11 is out of reach of a cohort of 10 out of 20 clients"),
        ("{stop.rounds.x: [1]}", 23, "stop.rounds.x", "stop.rounds is 3, which has no keys"),
        (
            "{clients.laptops.count: [4, 1], rounds.goal: [9]}",
            23,
            "rounds.goal",
            "goal 9 is out of reach of a cohort of 8",
        ),
    ],
)
def test_every_cell_is_checked(file: Path, axes: str, line: int, key: str, text: str) -> None:
    """A cell's fault stands where its axis stands, once however many cells have it."""
    file.write_text(f"{BASE}matrix: {axes}\n")
    fault = faults(file)[0]
    assert (fault.file, fault.line, fault.key) == ("base.yaml", line, key)
    assert fault.text.startswith(text)


def test_a_fault_of_the_base_is_told_once(file: Path) -> None:
    """Four cells have it, one line has it."""
    file.write_text(BASE.replace("lr: 0.1", "lr: x") + MATRIX)
    assert [(f.line, f.key) for f in faults(file)] == [(8, "training.lr")]


def test_a_set_that_an_axis_would_undo_is_a_fault(file: Path) -> None:
    """A run that differs from what was asked is an error; the axis itself can be set."""
    file.write_text(BASE + MATRIX)
    (fault,) = faults(file, ("strategy.weighting", "uniform"))
    assert (fault.file, fault.text) == (
        "--set",
        "no meaning, as the matrix sets strategy; set matrix.strategy instead",
    )
    cells = load(file, [("matrix.strategy", "[{kind: fedavg}]"), ("repeat", "1")]).cells
    assert [cell.values["strategy"] for cell in cells] == ["{kind: fedavg}"] * 2


def test_a_long_point_still_names_a_directory(file: Path) -> None:
    """File systems take 255 bytes; two points that differ only at the end keep two names."""
    file.write_text(f"{BASE}matrix: {{name: ['{'x' * 300}1', '{'x' * 300}2']}}\n")
    names = {cell.path.partition("/")[0] for cell in load(file).cells}
    assert len(names) == 2
    assert max(map(len, names)) < 255


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_a_shipped_scenario_asks_a_question_and_runs_again_from_its_run_directory(path: Path, tmp_path: Path) -> None:
    """The resolved file and the JSON that a joining client gets are the same scenario."""
    experiment = load(path)
    assert experiment.question.endswith("?")
    for cell in (experiment.cells[0], experiment.cells[-1]):
        (tmp_path / "scenario.yaml").write_text(as_yaml(cell, experiment.question))
        again = load(tmp_path / "scenario.yaml")
        assert again.question == experiment.question
        assert again.cells[0].scenario == parse(json.loads(json.dumps(cell.resolved))) == cell.scenario
        assert again.cells[0].resolved == cell.resolved


def test_a_run_resolved_is_a_single_run(file: Path) -> None:
    """A grid has no place where one client joins one run."""
    tree = read(BASE + MATRIX, "f")[0].tree
    with pytest.raises(ScenarioError, match="matrix: no place in a single run"):
        parse(tree)
    with pytest.raises(ScenarioError, match=r"scenario:1: stop\.rounds: '3' is not a whole number"):
        parse(read(BASE.replace("rounds: 3", "rounds: '3'"), "f")[0].tree)


def test_foreign_code_is_named_without_being_imported() -> None:
    """A client asks before it imports; users.absent could not be imported."""
    tree = {"model": {"kind": "users.absent:f"}, "a": [{"kind": "iid"}, {"b": {"kind": "mine:g"}}], "kind": 3}
    assert foreign(tree) == {"users.absent", "mine"}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_the_schema_knows_every_shipped_scenario(path: Path) -> None:
    """What runs has no red line in an editor."""
    jsonschema.Draft202012Validator(schema()).validate(read(path.read_text(), str(path))[0].tree)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("40ms", "40"),
        ("5Mbit/s", "5MB"),
        ("{kind: fedavg}", "{kind: fedavg, mu: 1}"),
        ("{kind: fedavg}", "{kind: fedagv}"),
        ("stop:", "stopp:"),
        ("50%", "fifty"),
        ("count: 4", "link: {}"),
        ("lr: 0.1", "batch_size: all"),
        ("delay: 40ms", "retry: never"),
        ("delay: 40ms", "tcp: {kind: slow-start, wi: 4}"),
        ("delay: 40ms", "tcp: slow_start"),
        ("delay: 40ms", "drop: {requests: 1%}"),
        ("{kind: digits}", "{kind: digits, examples: 0}"),
    ],
)
def test_the_schema_refuses_what_check_refuses(file: Path, old: str, new: str) -> None:
    """Editors underline the same mistakes."""
    tree = read(edited(file, (old, new)).read_text(), "f")[0].tree
    validator = jsonschema.Draft202012Validator(schema())
    validator.check_schema(validator.schema)
    assert not validator.is_valid(tree)
    assert validator.is_valid(read(BASE, "f")[0].tree)
    assert faults(file)


def _keys(node: Node, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Node]]:
    """Yield every key of a document with its path; the names of groups and variants are the author's own."""
    if isinstance(node, MappingNode):
        for key, value in node.value:
            if above not in {("clients",), ("variants",)}:
                yield (*above, key.value), key
            yield from _keys(value, (*above, key.value))


def _told(loc: tuple[str, ...]) -> tuple[str, ...]:
    """Return a key as a fault names it: what an axis or a variant sets, it names as if it stood in the scenario."""
    match loc:
        case ("matrix", *inside) | ("variants", _, *inside) if inside:
            return tuple(inside)
    return loc


def _typos(word: str) -> Iterator[str]:
    yield word + word[-1]
    if len(word) > 2:
        yield word[:-2] + word[-1] + word[-2] if word[-1] != word[-2] else word[:-1]


@pytest.mark.parametrize(
    ("old", "new", "key", "homes"),
    [
        ("lr: 0.1", "deadline: 5s", "training.deadline", "rounds"),
        ("stop:", "lr: 0.5\nstop:", "lr", "training or clients.NAME.training"),
        ("stop:", "conditions: {}\nstop:", "conditions", "clients.NAME"),
        ("lr: 0.1", "codec: {}", "training.codec", "the top level"),
        ("count: 4", "count: 4\n    straggler: {}", "clients.laptops.straggler", "clients.NAME.device"),
    ],
)
def test_a_key_in_the_wrong_place_is_told_where_it_belongs(
    file: Path, old: str, new: str, key: str, homes: str
) -> None:
    """It is not mistyped, and it is a key."""
    (fault,) = faults(edited(file, (old, new)))
    assert fault.key == key
    assert fault.text == f"{key.rpartition('.')[2]!r} is not a key here, but of {homes}"


STEP = "2 epochs; fedsgd takes one step, so expected 1 (fedavg takes more)"
BOTH = "; phones and laptops train so"


@pytest.mark.parametrize(
    ("training", "strategy", "text"),
    [
        ("epochs: 2", "fedsgd", f"{STEP}{BOTH}"),
        ("schedule: [{round: 3, epochs: 2}]", "fedsgd", f"{STEP}{BOTH}"),
        ("momentum: 0.5", "scaffold", f"local momentum 0.5; scaffold's control variates are for 0{BOTH}"),
        ("lr: 0.1", "fedasync, b: 2", "b 2.0 for polynomial staleness; expected none, or hinge"),
    ],
)
def test_an_algorithm_that_cannot_train_so_is_a_fault_of_the_file(
    file: Path, training: str, strategy: str, text: str
) -> None:
    """Found before any data are loaded, at the line of the strategy, once; the groups are named if it is for them."""
    path = edited(file, ("lr: 0.1", training), ("{kind: fedavg}", f"{{kind: {strategy}}}"))
    (fault,) = faults(path)
    line = next(n for n, line in enumerate(path.read_text().splitlines(), 1) if line.startswith("strategy"))
    assert (fault.line, fault.key, fault.text) == (line, "strategy", text)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_mistyped_key_of_every_shipped_scenario_gives_one_fault_that_knows_what_was_meant(
    path: Path, tmp_path: Path
) -> None:
    """A letter too many, or two that changed places; nothing but that one key is faulty."""
    lines = path.read_text().splitlines(keepends=True)
    file = tmp_path / path.name
    tried = 0
    for loc, node in _keys(YAML(typ="safe", pure=True).compose(StringIO("".join(lines)))):
        row, column = node.start_mark.line, node.start_mark.column
        for typo in _typos(loc[-1]):
            line = lines[row]
            assert line[column:].startswith(loc[-1])
            wrong = [*lines[:row], line[:column] + typo + line[column + len(loc[-1]) :], *lines[row + 1 :]]
            file.write_text("".join(wrong))
            key = ".".join((*_told(loc)[:-1], typo))
            meant, mistyped = loc[-1].rpartition(".")[2], typo.rpartition(".")[2]
            expected = Fault(path.name, row + 1, key, f"{mistyped!r} is not a key here; did you mean {meant!r}?")
            assert faults(file) == [expected]
            tried += 1
    assert tried > 40


@pytest.mark.parametrize(
    ("rounds", "text"),
    [
        ("{concurrency: 5, tick: 3s, quorum: 8}", "quorum 8 is out of reach of a cohort of 5 out of 20 clients"),
        ("{concurrency: 5, tick: 3s, quorum: 8, barrier: false}", None),
        ("{concurrency: 5, quorum: 8, barrier: false}", "quorum 8 is out of reach of a cohort of 5 out of 20 clients"),
        ("{concurrency: 5, goal: 3, quorum: 5}", "quorum 5 is above goal 3, which closes a round"),
        ("{fraction: 10%, goal: 3}", "goal 3 is out of reach of a cohort of 2 out of 20 clients"),
        ("{fraction: 10%, goal: 3, barrier: false}", None),
    ],
)
def test_a_quorum_or_goal_that_no_round_can_have_is_a_fault(file: Path, rounds: str, text: str | None) -> None:
    """Without a barrier who is done starts again, so that a tick may see more updates than clients."""
    if text is None:
        assert len(load(file, [("rounds", rounds)]).cells) == 1
    else:
        assert [fault.text for fault in faults(file, ("rounds", rounds))] == [text]


def test_a_file_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    """No traceback for a wrong name, a folder or a picture."""
    (tmp_path / "picture.yaml").write_bytes(b"\xff\xd8\xff")
    for name, reason in (("absent", "No such file"), (".", "Is a directory"), ("picture.yaml", "not UTF-8 text")):
        (fault,) = faults(tmp_path / name)
        assert fault.text.startswith(f"cannot be read: {reason}")


def test_the_order_of_a_grid_is_the_order_of_the_file(file: Path) -> None:
    """itertools.product over the axes as they are written."""
    file.write_text(f"{BASE}matrix: {{seed: [3, 1], rounds.quorum: [2, 1]}}\n")
    points = [tuple(cell.values.values()) for cell in load(file).cells]
    assert points == list(itertools.product("31", "21"))
