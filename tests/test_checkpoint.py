"""A run that was interrupted and goes on from a checkpoint: the log of the whole run, byte for byte."""

from pathlib import Path

import pytest

from fedemu import checkpoint, durable, experiment
from fedemu.checkpoint import FILE, not_resumable
from fedemu.checkpoint import load as load_checkpoint
from fedemu.errors import RunError
from fedemu.events import Event, RoundClosed
from fedemu.scenario import load

SCENARIO = """\
name: long
dataset: {kind: digits, examples: 400}
partition: {kind: dirichlet, alpha: 0.5}
model: {kind: twonn, hidden: 16}
training: {epochs: 2, batch_size: 16, lr: 0.1}
strategy: {kind: fedavg}
rounds: {concurrency: 4}
clients:
  phones:
    count: 8
    device: {kind: lognormal, per_example: 20ms, sigma: 0.8}
    link: {delay: 40ms, jitter: 20ms, drop: 5%, up: {rate: 1Mbit/s}, down: {rate: 5Mbit/s}}
stop: {rounds: 8}
compute: {kind: inline}
"""

WAYS = {
    "synchronous": {},
    "deadline": {"rounds": "{concurrency: 4, deadline: 2s}"},
    "late ones dropped": {"rounds": "{concurrency: 4, deadline: 2s, late: drop}"},
    "ticks": {"rounds": "{concurrency: 4, tick: 1s}"},
    "fedbuff": {"strategy": "{kind: fedbuff}", "rounds": "{concurrency: 5, goal: 2, barrier: false}"},
    "fedasync": {"strategy": "{kind: fedasync}", "rounds": "{concurrency: 4, goal: 1, barrier: false}"},
    "scaffold": {"strategy": "{kind: scaffold}"},
    "scaffold without a barrier": {
        "strategy": "{kind: scaffold}",
        "rounds": "{concurrency: 4, goal: 2, barrier: false}",
    },
    "fednova and deadlines": {"strategy": "{kind: fednova}", "rounds": "{concurrency: 4, deadline: 2s}"},
    "momentum and oort": {"strategy": "{kind: fedavgm}", "rounds.select": "{kind: oort}"},
    "feedback": {"codec": "{up: {kind: topk, ratio: 10%}, down: {kind: fp16}}"},
    "feedback without a barrier": {
        "codec": "{up: {kind: topk, ratio: 10%}}",
        "rounds": "{concurrency: 4, goal: 2, barrier: false}",
    },
    "churn": {"availability": "{kind: on-off, online: 4s, offline: 1s}", "rounds": "{concurrency: 3, deadline: 3s}"},
    "pool": {"compute": "{kind: pool, workers: 2}"},
    "grpc": {"transport": "grpc-unix"},
}


def interrupted_at(number: int):
    """Return an observer that interrupts the run when a round after `number` closes."""

    def observe(event: Event) -> None:
        if isinstance(event, RoundClosed) and event.round > number:
            raise KeyboardInterrupt

    return observe


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "long.yaml"
    path.write_text(SCENARIO)
    return path


@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_goes_on_has_the_log_of_one_that_was_never_interrupted(file: Path, tmp_path: Path, way: str) -> None:
    """Interrupted when the sixth round closes, after the fifth's checkpoint, of which nothing is trained again."""
    (cell,) = load(file, list(WAYS[way].items())).cells
    out = tmp_path / "out"
    with experiment.workers(cell.scenario) as compute:
        whole = experiment.run(cell, compute)
        with pytest.raises(KeyboardInterrupt):
            experiment.run(cell, compute, out=out, every=0, observers=[interrupted_at(5)])
        saved = load_checkpoint(out)
        assert saved is not None
        assert saved.facts["round"] == 5
        asked = []
        train = type(compute).train
        said = []

        class Counting:
            workers, buffer, warm, evaluate = compute.workers, compute.buffer, compute.warm, compute.evaluate

            def train(self, recipe, job):
                asked.append((job.client, job.round, job.turn))
                return train(compute, recipe, job)

        result = experiment.run(cell, Counting(), out=out, resume=True, announce=said.append)
    assert result["digest"] == whole["digest"]
    assert result["final"] == whole["final"]
    assert said == [f"{out}: going on from round 5"]
    assert not {tuple(told[:3]) for told in saved.facts["trained"]} & set(asked)
    assert not (out / FILE).parent.exists()


def go_on(cell, out: Path, at: int | None = None):
    """Go on with a run, up to a round or to its end; return its result."""
    with experiment.workers(cell.scenario) as compute:
        observers = [] if at is None else [interrupted_at(at)]
        return experiment.run(cell, compute, out=out, every=0, resume=True, observers=observers)


def test_a_run_may_be_interrupted_again_and_again(file: Path, tmp_path: Path) -> None:
    """After rounds 1, 2, 5 and 7, without a barrier and with memory on the clients."""
    sets = [("strategy", "{kind: scaffold}"), ("rounds", "{concurrency: 4, goal: 2, barrier: false}")]
    (cell,) = load(file, sets).cells
    for at in (1, 2, 5, 7):
        with pytest.raises(KeyboardInterrupt):
            go_on(cell, tmp_path / "out", at)
    whole = go_on(cell, tmp_path / "other")
    assert go_on(cell, tmp_path / "out")["digest"] == whole["digest"]
    assert (tmp_path / "out" / "events.jsonl").read_bytes() == (tmp_path / "other" / "events.jsonl").read_bytes()


def test_a_run_with_checkpoints_is_the_run_without(file: Path, tmp_path: Path) -> None:
    """Writing them takes no emulated time and moves nothing."""
    (cell,) = load(file, [("rounds", "{concurrency: 5, goal: 2, barrier: false}")]).cells
    with experiment.workers(cell.scenario) as compute:
        without = experiment.run(cell, compute)
    assert go_on(cell, tmp_path / "out")["digest"] == without["digest"]


@pytest.fixture
def interrupted(file: Path, tmp_path: Path):
    """A run that was interrupted after round 3, and its directory."""
    (cell,) = load(file).cells
    with pytest.raises(KeyboardInterrupt):
        go_on(cell, tmp_path / "out", 3)
    return cell, tmp_path / "out"


@pytest.mark.parametrize("content", [b"", b"rubbish", None])
def test_a_damaged_checkpoint_is_as_good_as_none(interrupted, content: bytes | None) -> None:
    """Empty, something else, or cut off: the run begins again."""
    cell, out = interrupted
    whole = (out / FILE).read_bytes()
    (out / FILE).write_bytes(whole[: len(whole) // 2] if content is None else content)
    assert load_checkpoint(out) is None
    assert go_on(cell, out)["updates"]["aggregated"] == 8 * 4


def test_a_checkpoint_of_another_version_is_none(interrupted, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it says may mean something else."""
    monkeypatch.setattr(checkpoint, "__version__", "9.9.9")
    assert load_checkpoint(interrupted[1]) is None


def test_a_run_that_comes_another_way_does_not_go_on(interrupted, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log of the first three rounds has another digest: links that have changed, say."""
    cell, out = interrupted
    saved = load_checkpoint(out)
    assert saved is not None
    durable.store(out / FILE, saved._replace(facts={**saved.facts, "digest": "0" * 64}))
    with pytest.raises(RunError, match=r"another way to round 3 than the one that wrote .*; remove that to begin"):
        go_on(cell, out)


@pytest.mark.parametrize(
    ("sets", "why"),
    [
        ({"clock": "real"}, "the real clock cannot be wound back"),
        ({"codec": "{up: {kind: int8, zstd: 3}}"}, "codec.zstd makes messages whose length depends on what they say"),
        (
            {"codec": "{down: {kind: topk, delta: true}}"},
            "codec.down.delta makes models that depend on earlier ones",
        ),
        ({"codec": "{up: {kind: topk}}"}, None),
    ],
)
def test_what_cannot_be_gone_on_with_has_no_checkpoints(file: Path, tmp_path: Path, sets, why: str | None) -> None:
    """It begins again."""
    (cell,) = load(file, list(sets.items())).cells
    assert not_resumable(cell.scenario) == why


def test_where_no_checkpoint_can_be_written_the_run_fails_and_says_so(file: Path, tmp_path: Path) -> None:
    """A file stands where its directory should be."""
    (cell,) = load(file).cells
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "checkpoint").write_text("")
    with pytest.raises(RunError, match=r"last.safetensors cannot be written: "):
        go_on(cell, tmp_path / "out")
