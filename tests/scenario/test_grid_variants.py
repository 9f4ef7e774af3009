"""Variants: bundles of keys with a name, each a run of its own, alone or with a matrix and repeats."""

from pathlib import Path

import pytest

from fedemu import campaign, replay
from fedemu.cli import main
from fedemu.errors import Fault, ScenarioError
from fedemu.scenario import Cell, as_yaml, load, parse

BASE = """\
# Which?
name: base
dataset: {kind: digits, examples: 100}
partition: {kind: iid}
model: {kind: softmax}
strategy: {kind: fedavg}
training:
  lr: 0.1
rounds:
  fraction: 50%
clients:
  phones:
    count: 4
    link:
      delay: 40ms
      up: {rate: 5Mbit/s}
stop:
  rounds: 2
"""
FIRST = BASE.count("\n") + 1
"""Line of what is written after it."""

VARIANTS = """\
variants:
  plain: {training.lr: 0.5}
  far:
    clients.phones.link: {delay: 1s}
    rounds.goal: 1
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "base.yaml"
    path.write_text(BASE + VARIANTS)
    return path


def faults(path: Path, *sets: tuple[str, str]) -> list[Fault]:
    """Return what is wrong, with the file's name instead of its path."""
    with pytest.raises(ScenarioError) as caught:
        load(path, sets)
    return [Fault(Path(f.file).name, f.line, f.key, f.text) for f in caught.value.faults]


def by_path(path: Path, *sets: tuple[str, str]) -> dict[str, Cell]:
    return {cell.path: cell for cell in load(path, sets).cells}


def test_a_variant_changes_its_keys_and_no_others(file: Path) -> None:
    """A dotted key changes one number; a mapping replaces the whole link, uplink and all."""
    plain, far = load(file).cells
    assert [(cell.variant, cell.path, cell.values) for cell in (plain, far)] == [
        ("plain", "plain/seed-1", {}),
        ("far", "far/seed-1", {}),
    ]
    assert (plain.scenario.training.lr, far.scenario.training.lr) == (0.5, 0.1)
    assert (plain.scenario.rounds.goal, far.scenario.rounds.goal) == (None, 1)
    assert far.scenario.rounds.fraction == plain.scenario.rounds.fraction == 0.5
    links = [cell.scenario.clients["phones"].link for cell in (plain, far)]
    assert [link.delay for link in links] == [0.04, 1.0]
    assert [link.way("up").rate for link in links] == [5e6, None]
    assert [cell.scenario.clients["phones"].count for cell in (plain, far)] == [4, 4]


def test_an_empty_variant_is_the_scenario_as_it_is(file: Path) -> None:
    """A baseline needs no key that repeats what stands above."""
    file.write_text(BASE)
    (base,) = load(file).cells
    file.write_text(f"{BASE}variants: {{plain: {{}}, fast: {{stop.rounds: 1}}}}\n")
    plain, fast = load(file).cells
    assert (plain.scenario, plain.resolved) == (base.scenario, base.resolved)
    assert fast.scenario.stop.rounds == 1


def test_variants_a_matrix_and_repeats_make_all_their_combinations(file: Path) -> None:
    """2 variants x 2 counts x 2 seeds, seeds fastest and variants slowest; each has its directory."""
    file.write_text(file.read_text() + "matrix: {clients.phones.count: [4, 6]}\nrepeat: 2\n")
    cells = by_path(file)
    assert list(cells) == [
        f"{variant}/clients.phones.count={count}/seed-{seed}"
        for variant in ("plain", "far")
        for count in (4, 6)
        for seed in (1, 2)
    ]
    last = cells["far/clients.phones.count=6/seed-2"]
    assert (last.scenario.num_clients, last.scenario.rounds.goal, last.scenario.seed) == (6, 1, 2)
    assert last.values == {"clients.phones.count": "6"}


def test_an_axis_may_reach_inside_what_a_variant_replaces(file: Path) -> None:
    """The mapping is put first: `far` has its delay of 1 s, and every cell the axis's jitter."""
    file.write_text(file.read_text() + "matrix: {clients.phones.link.jitter: [5ms]}\n")
    links = [cell.scenario.clients["phones"].link for cell in load(file).cells]
    assert [(link.delay, link.jitter) for link in links] == [(0.04, 0.005), (1.0, 0.005)]


def test_a_variant_may_have_a_seed_of_its_own(file: Path) -> None:
    """Repeats count from it."""
    file.write_text(BASE + "variants: {a: {seed: 7}, b: {stop.rounds: 1}}\nrepeat: 2\n")
    assert list(by_path(file)) == ["a/seed-7", "a/seed-8", "b/seed-1", "b/seed-2"]


def test_variants_may_give_what_the_base_lacks(file: Path) -> None:
    """Without a strategy the base is no scenario; with one in each variant all of them are."""
    text = BASE.replace("strategy: {kind: fedavg}\n", "")
    file.write_text(
        text + "variants:\n  a: {strategy: {kind: fedavg}}\n  b: {strategy.kind: fedprox, strategy.mu: 0.1}\n"
    )
    assert [cell.scenario.strategy.kind for cell in load(file).cells] == ["fedavg", "fedprox"]
    file.write_text(text + "variants:\n  a: {strategy: {kind: fedavg}}\n  b: {stop.rounds: 1}\n")
    (fault,) = faults(file)
    assert fault.key == "strategy"


def test_a_resolved_variant_is_a_single_run(file: Path, tmp_path: Path) -> None:
    """It comes back from its own file as it was, without variants."""
    for cell in load(file).cells:
        assert "variants" not in cell.resolved
        path = tmp_path / f"{cell.variant}.yaml"
        path.write_text(as_yaml(cell, "Which?"))
        (again,) = load(path).cells
        assert (again.scenario, again.resolved, again.path) == (cell.scenario, cell.resolved, "")
        assert parse(cell.resolved) == cell.scenario


def test_a_resolved_mapping_has_no_place_for_variants(file: Path) -> None:
    """Whoever joins a run gets one scenario."""
    mapping = {**load(file).cells[0].resolved, "variants": {"a": {"stop.rounds": 1}}}
    with pytest.raises(ScenarioError) as caught:
        parse(mapping)
    assert [(f.key, f.text) for f in caught.value.faults] == [
        ("variants", "no place in a single run; resolve it to cells first")
    ]


@pytest.mark.parametrize(
    ("written", "line", "key", "text"),
    [
        (
            "variants:\n  a: {stop.rounds: 1}\n  b: {rounds.fractoin: 10%}",
            2,
            "rounds.fractoin",
            "'fractoin' is not a key here; did you mean 'fraction'?",
        ),
        (
            "variants:\n  a: {stop.rounds: 1}\n  b: {clients.phons.count: 2}",
            2,
            "clients.phons.count",
            "'phons' is not a group; did you mean 'phones'?",
        ),
        ("variants:\n  a:\n    stop.rounds: 1\n    training.lr: -1", 3, "training.lr", "-1 "),
        ("variants:\n  a: {stop.rounds.x: 1}", 1, "stop.rounds.x", "stop.rounds is 2, which has no keys"),
        ("variants:\n  a: {rounds.goal: 3}", 1, "rounds.goal", "goal 3 is out of reach of a cohort of 2 out of 4"),
        (
            "variants:\n  a: {stop.rounds: 1, rounds.fraction: 10%}\nmatrix: {rounds.fraction: [20%]}",
            1,
            "variants.a.rounds.fraction",
            "sets what matrix.rounds.fraction sets; put it in one of the two",
        ),
        ("variants:\n  a: {repeat: 2}", 1, "variants.a.repeat", "'repeat' cannot stand in a variant"),
        (
            "variants:\n  a: {matrix.training.lr: [1]}",
            1,
            "variants.a.matrix.training.lr",
            "'matrix.training.lr' cannot stand in a variant",
        ),
        ("variants:\n  a: {variants: {}}", 1, "variants.a.variants", "'variants' cannot stand in a variant"),
        (
            "variants:\n  a: {rounds: {goal: 1}}\nmatrix: {rounds.goal: [2]}",
            1,
            "variants.a.rounds",
            "sets what matrix.rounds.goal sets; put it in one of the two",
        ),
        (
            "variants:\n  a: {stop.rounds: 1}\nmatrix: {stop: [{rounds: 2}]}",
            1,
            "variants.a.stop.rounds",
            "sets what matrix.stop sets; put it in one of the two",
        ),
        (
            "variants:\n  a: {stop.time: 1s}\nmatrix: {stop: [{rounds: 2}, {rounds: 3, time: 5s}]}",
            1,
            "variants.a.stop.time",
            "sets what matrix.stop sets; put it in one of the two",
        ),
        (
            "variants:\n  a: {rounds: {goal: 1}, rounds.goal: 2}",
            1,
            "variants.a.rounds",
            "sets what variants.a.rounds.goal sets; put it in one of the two",
        ),
        (
            "matrix:\n  rounds: [{goal: 1}, {goal: 2}]\n  rounds.goal: [1, 2]",
            2,
            "matrix.rounds.goal",
            "sets what matrix.rounds sets; put it in one of the two",
        ),
        ("matrix: {seed: [1, 2]}\nrepeat: 2", 0, "matrix.seed", "repeat counts seeds up itself; leave out one of"),
        ("variants: {a: {codec: {up: {kind: fp16}}}}\ncodec: {upp: {}}", 1, "codec.upp", "'upp' is not a key here"),
        ("variants: {}", 0, "variants", "{} is empty; expected at least 1"),
        ("variants:\n  a: 3", 1, "variants.a", "3 is not a mapping"),
        ("variants:\n  a b: {stop.rounds: 1}", 1, "variants.a b", "'a b' cannot name a variant"),
        ("variants: {a: {stop.rounds: 1}}\nmatrix: {variants: [1]}", 1, "matrix.variants", "'variants' cannot be an"),
    ],
)
def test_a_fault_stands_where_its_variant_stands(file: Path, written: str, line: int, key: str, text: str) -> None:
    """One fault, in the line of the key that is wrong; lines count from that of `variants`."""
    file.write_text(f"{BASE}{written}\n")
    (fault,) = faults(file)
    assert (fault.file, fault.line - FIRST, fault.key) == ("base.yaml", line, key)
    assert fault.text.startswith(text)


def test_what_is_wrong_with_several_variants_is_told_at_once(file: Path) -> None:
    """Two variants, two lines."""
    file.write_text(f"{BASE}variants:\n  a: {{training.lr: -1}}\n  b: {{stop.rounds: 0}}\n")
    assert [(f.line - FIRST, f.key) for f in faults(file)] == [(1, "training.lr"), (2, "stop.rounds")]


def test_a_set_that_a_variant_would_undo_is_a_fault(file: Path) -> None:
    """The variant itself can be set, and so can what no variant says."""
    (fault,) = faults(file, ("training.lr", "0.9"))
    assert (fault.file, fault.key, fault.text) == (
        "--set",
        "training.lr",
        "no meaning, as variant plain sets training.lr; set variants.plain.training.lr instead",
    )
    (inside,) = faults(file, ("clients.phones.link.delay", "2ms"))
    assert inside.text.startswith("no meaning, as variant far sets clients.phones.link;")
    cells = by_path(file, ("variants.plain.training.lr", "0.9"), ("training.batch_size", "8"))
    assert [cell.scenario.training.lr for cell in cells.values()] == [0.9, 0.1]
    assert {cell.scenario.training.batch_size for cell in cells.values()} == {8}


def test_replay_finds_the_runs_of_all_variants(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With and without a matrix, directories are two or three deep; seed 10 comes after seed 9."""
    alone, crossed = tmp_path / "alone", tmp_path / "crossed"
    campaign.run(load(file, seed=9), out=alone)
    campaign.run(load(file, [("matrix", "{clients.phones.count: [2, 3]}"), ("repeat", "2")], seed=9), out=crossed)
    found = [str(recording.folder.relative_to(alone)) for recording in replay.recordings(alone)]
    assert found == ["far/seed-9", "plain/seed-9"]
    found = [str(recording.folder.relative_to(crossed)) for recording in replay.recordings(crossed)]
    assert found == [
        f"{variant}/clients.phones.count={count}/seed-{seed}"
        for variant in ("far", "plain")
        for count in (2, 3)
        for seed in (9, 10)
    ]
    assert main(["replay", str(alone), "--quiet"]) == 0
    assert capsys.readouterr().out.count("identical, ") == 2
