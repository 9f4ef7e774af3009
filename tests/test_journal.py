"""Servers that stop in mid-round and are started again, over real gRPC in one process; and what is left of a log."""

import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fedemu import durable, experiment, guest
from fedemu.compute.inline import inline
from fedemu.durable import Saved
from fedemu.errors import RunError
from fedemu.events import (
    ClientJoined,
    ClientLeft,
    Evaluated,
    RoundClosed,
    RoundFailed,
    RoundStarted,
    RunFinished,
    RunResumed,
    RunStarted,
    TaskSent,
    TransferEnded,
    UpdateLost,
    UpdateReceived,
    as_line,
)
from fedemu.journal import FILE, remembered
from fedemu.recovery import Log, has_begun, recover
from fedemu.rounds import BEGINNING, Standing
from fedemu.scenario import load
from fedemu.selectors.round_robin import round_robin
from fedemu.sessions import OVER, STOPPED, Taken

SCENARIO = """\
clock: real
transport: grpc
dataset: {kind: digits, examples: 300}
partition: {kind: dirichlet, alpha: 1.0}
model: {kind: softmax}
training: {lr: 0.1}
strategy: {kind: fedavg}
clients: {a: {count: 4}}
stop: {rounds: 4}
compute: {kind: inline}
"""

WAYS = {
    "server state": {"strategy": "{kind: fedadam}"},
    "state on both sides": {"strategy": "{kind: scaffold}"},
    "state of a selector": {"rounds": "{fraction: 50%, select: {kind: round-robin}}"},
    "codec with feedback": {"codec": "{up: {kind: topk, ratio: 20%}}"},
}


class Crash(Exception):
    """The server's end."""


class Killer:
    """An observer that ends its server right after a certain update of a certain round was taken."""

    def __init__(self, round: int, number: int) -> None:
        self._round, self._left = round, number

    def __call__(self, event: object) -> None:
        if isinstance(event, UpdateReceived) and event.round == self._round:
            self._left -= 1
            if not self._left:
                raise Crash


def served(folder: Path, sets: dict[str, str], stops: list[tuple[int, int]]) -> dict:
    """Run a scenario whose server stops at these moments, and is started again each time."""
    (cell,) = load(folder / "four.yaml", list(sets.items())).cells
    address = f"unix:{folder}/socket"
    threads = [threading.Thread(target=guest.join, args=(address, "a", slot)) for slot in range(4)]
    for thread in threads:
        thread.start()
    with inline()() as compute:
        for stop in stops:
            with pytest.raises(Crash):
                experiment.run(
                    cell, compute, out=folder / "run", listen=address, resume=True, observers=[Killer(*stop)]
                )
        result = experiment.run(cell, compute, out=folder / "run", listen=address, resume=True)
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    return result


@pytest.mark.parametrize("way", WAYS)
def test_a_run_whose_server_stopped_ends_with_the_model_of_one_that_did_not(tmp_path, way):
    """The update that was taken last is written down, and no client had been told: that is the worst moment."""
    (tmp_path / "four.yaml").write_text(SCENARIO)
    result = served(tmp_path, WAYS[way], [(2, 1)])
    (cell,) = load(tmp_path / "four.yaml", list(WAYS[way].items())).cells
    with inline()() as compute:
        alone = experiment.run(cell, compute, out=tmp_path / "alone")
    assert result["updates"]["aggregated"] == alone["updates"]["aggregated"]
    assert result["restarts"]["count"] == 1
    ours, theirs = (load_file(tmp_path / run / "model.safetensors") for run in ("run", "alone"))
    for name, tensor in theirs.items():
        assert (ours[name] - tensor).abs().max() < 1e-6


def line(kind, at, **fields):
    return f"{as_line(kind(at=at, **fields))}\n".encode()


def about(client, round):
    return {"client": client, "group": "a", "round": round, "attempt": 1}


BEGUN = [
    line(RunStarted, 0.0, name="x", seed=1, version="1", clients=2, parameters=3),
    line(ClientJoined, 0.0, client="a/0", group="a"),
    line(ClientJoined, 0.0, client="a/1", group="a"),
    line(RoundStarted, 0.0, round=1, cohort=("a/0", "a/1")),
    line(TaskSent, 0.0, **about("a/0", 1), bytes=20, version=0),
    line(TaskSent, 0.0, **about("a/1", 1), bytes=20, version=0),
]
TOOK = line(UpdateReceived, 1.0, **about("a/0", 1), bytes=9, staleness=0)
CLOSED = line(RoundClosed, 2.0, round=1, aggregated=1, late=1, lost=0, duration=2.0)
TASK = Taken("a/0", "a", 1, 1, 29)


def log_of(folder: Path, lines: list[bytes], position: int = 0, *, keeps_late: bool = False) -> Log:
    path = folder / "events.jsonl"
    path.write_bytes(b"".join(lines))
    return Log(path, position, keeps_late=keeps_late)


def ends(log: Log) -> list[tuple]:
    return [(type(e).__name__, getattr(e, "client", None), getattr(e, "reason", None)) for e in log.ends(5.0, 0)]


def test_what_was_open_when_a_server_stopped_is_ended(tmp_path):
    """The task whose update was taken is done, the other's is lost; both clients are gone, and the round failed."""
    down = {"direction": "down", "outcome": "delivered", "wire": 25, "began": 0.0, "queued": 0.0, "retransmitted": 0}
    sent = line(TransferEnded, 0.5, **about("a/1", 1), **down, bytes=20, delay=0.1)
    log = log_of(tmp_path, [*BEGUN, sent, TOOK])
    assert list(log.ends(5.0, 0)) == [
        UpdateLost(at=5.0, **about("a/1", 1), reason=STOPPED, wasted=20),
        ClientLeft(at=5.0, client="a/0", group="a", reason=STOPPED),
        ClientLeft(at=5.0, client="a/1", group="a", reason=STOPPED),
        RoundFailed(at=5.0, round=1, reason=STOPPED),
        RunResumed(at=5.0, round=0, down=4.0),
    ]
    assert [as_line(event) for event in log.events()] == [line.decode().strip() for line in [*BEGUN, sent, TOOK]]


def test_a_round_that_two_stops_have_ended_goes_on_by_its_number(tmp_path):
    """The second one came before the server had given out a task: what it was at is what the first had been at."""
    first = log_of(tmp_path, [*BEGUN, TOOK])
    once = [f"{as_line(event)}\n".encode() for event in first.ends(5.0, 0)]
    second = log_of(tmp_path, [*BEGUN, TOOK, *once])
    assert first.standing(BEGINNING).round == second.standing(BEGINNING).round == 0
    assert second.there == {"a/0", "a/1"}
    assert second.received == first.received
    assert ends(second) == [("RunResumed", None, None)]


def test_who_has_heard_that_the_run_is_over_is_not_waited_for(tmp_path):
    """The server stopped after it had said so, and before it had written down how the run ended."""
    evaluated = line(Evaluated, 2.5, round=1, accuracy=0.9, loss=1.0)
    lines = [*BEGUN, TOOK, CLOSED, evaluated]
    left = line(ClientLeft, 3.0, client="a/0", group="a", reason=OVER)
    log = log_of(tmp_path, [*lines, left], len(b"".join([*BEGUN, TOOK, CLOSED])))
    assert log.there == {"a/1"}
    assert log.standing(BEGINNING._replace(closed=1)) == Standing(1, 1, evaluated=1, time=2.0, best=0.9)


def test_an_update_that_was_taken_and_is_not_in_the_log_is_told(tmp_path):
    """It was written down, and the server stopped before the log had it."""
    log = log_of(tmp_path, BEGUN)
    log.untold.append((TASK, 9, 0))
    assert ends(log)[:2] == [("UpdateReceived", "a/0", None), ("UpdateLost", "a/1", STOPPED)]


def test_an_update_that_is_in_the_log_and_nowhere_else_is_lost(tmp_path):
    """It came, and the server stopped before it was written down: nobody was told that it is of use."""
    log = log_of(tmp_path, [*BEGUN, TOOK])
    log.unkept += log.received
    first, second, *_ = log.ends(5.0, 0)
    assert first == UpdateLost(at=5.0, **about("a/0", 1), reason=STOPPED, wasted=9)
    assert (second.client, second.reason) == ("a/1", STOPPED)


def test_what_has_come_and_was_lost_has_not_come(tmp_path):
    """Of a server that stopped twice: what the first stop has lost the second one finds gone. Late ones never count."""
    lost = line(UpdateLost, 3.0, **about("a/0", 1), reason=STOPPED, wasted=9)
    assert log_of(tmp_path, [*BEGUN, TOOK, lost]).received == []
    closed = [*BEGUN, TOOK, CLOSED, line(RoundStarted, 2.0, round=2, cohort=("a/0",))]
    late = line(UpdateReceived, 3.0, **about("a/1", 1), bytes=9, staleness=1)
    size = len(b"".join(closed))
    assert log_of(tmp_path, [*closed, late], size).received == []
    assert [e.client for e, _ in log_of(tmp_path, [*closed, late], size, keeps_late=True).received] == ["a/1"]


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        pytest.param([TOOK, TOOK[:30]], [TOOK], id="half a line"),
        pytest.param([TOOK, line(RunFinished, 2.0, reason="interrupted", time=2.0)], [TOOK], id="the end of the run"),
        pytest.param(
            [TOOK, CLOSED, line(Evaluated, 2.5, round=1, accuracy=0.5, loss=1.0)], [TOOK], id="a round without a model"
        ),
    ],
)
def test_what_is_not_right_in_a_log_goes(tmp_path, lines, kept):
    """The log is as long as all before it."""
    assert log_of(tmp_path, [*BEGUN, *lines]).kept == len(b"".join([*BEGUN, *kept]))


def test_a_round_whose_model_is_in_the_checkpoint_has_closed(tmp_path):
    """Nothing fails; the straggler, which was given up when it closed, is late, unless late ones are kept."""
    lines = [*BEGUN, TOOK, CLOSED]
    size = len(b"".join(lines))
    assert ends(log_of(tmp_path, lines, size))[0] == ("UpdateLost", "a/1", "late")
    assert ends(log_of(tmp_path, lines, size, keeps_late=True))[0] == ("UpdateLost", "a/1", STOPPED)
    assert "RoundFailed" not in [kind for kind, *_ in ends(log_of(tmp_path, lines, size))]


def test_who_leaves_when_the_server_does_was_there(tmp_path):
    """A server that is told to stop sees its clients leave; one that has left while it worked is not waited for."""
    gone = line(ClientLeft, 2.0, client="a/1", group="a", reason="whatever")
    assert log_of(tmp_path, [*BEGUN, TOOK, gone]).there == {"a/0", "a/1"}
    assert log_of(tmp_path, [*BEGUN, gone, TOOK]).there == {"a/0"}


def test_a_log_that_lacks_what_it_had_at_the_checkpoint_is_refused(tmp_path):
    """Whatever cut it, the run cannot be told as one."""
    with pytest.raises(ValueError, match=r"has \d+ bytes that are right; at the checkpoint it had 100000"):
        log_of(tmp_path, BEGUN, 100000)
    with pytest.raises(ValueError, match="line 7 is not an event of this version"):
        log_of(tmp_path, [*BEGUN, b'{"at":1,"event":"Nonsense"}\n'])


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        pytest.param(lambda path: path.write_bytes(b"x" * 100), "cannot be read", id="garbage"),
        pytest.param(
            lambda path: durable.store(path, Saved({"version": "0.0.1"}, {"weights": torch.zeros(1)})),
            "is of fedemu 0.0.1",
            id="another version",
        ),
    ],
)
def test_a_checkpoint_that_is_of_no_use_is_never_passed_over(tmp_path, damage, text):
    """To begin again in its place would lose what was acknowledged."""
    (tmp_path / FILE).parent.mkdir()
    damage(tmp_path / FILE)
    with pytest.raises(RunError, match=text):
        recover(tmp_path, keeps_late=False)


def test_without_a_checkpoint_a_run_begins(tmp_path):
    """Its server was killed while it waited for clients, or never was: its rounds had not begun."""
    assert recover(tmp_path, keeps_late=False) is None
    assert not has_begun(tmp_path)
    log_of(tmp_path, BEGUN[:3])
    assert not has_begun(tmp_path)
    log_of(tmp_path, BEGUN)
    assert has_begun(tmp_path)


def test_a_selector_that_keeps_what_json_does_not_have_is_refused():
    """A set would come back as a list, if at all."""
    select = round_robin()
    assert remembered(select) == {"turns": []}
    select.turns = {"a/0"}
    with pytest.raises(RunError, match="remembers what no checkpoint can hold: Object of type set"):
        remembered(select)


def test_two_runs_cannot_have_one_directory(tmp_path):
    """The second one says so, and touches nothing of the first."""
    (tmp_path / "four.yaml").write_text(SCENARIO)
    (cell,) = load(tmp_path / "four.yaml").cells
    with (
        durable.alone_in(tmp_path / "run"),
        inline()() as compute,
        pytest.raises(RunError, match="is in use by another"),
    ):
        experiment.run(cell, compute, out=tmp_path / "run", listen=f"unix:{tmp_path}/socket", resume=True)
    assert list((tmp_path / "run").iterdir()) == []


def test_a_run_that_another_one_has_ended_meanwhile_is_over(tmp_path):
    """Its outcome is what that one has written, and nothing is begun."""
    (tmp_path / "four.yaml").write_text(SCENARIO)
    (cell,) = load(tmp_path / "four.yaml", [("clock", "virtual"), ("transport", "memory")]).cells
    with inline()() as compute:
        first = experiment.run(cell, compute, out=tmp_path / "run")
        log = (tmp_path / "run" / "events.jsonl").read_bytes()
        assert experiment.run(cell, compute, out=tmp_path / "run", resume=True) == first
    assert (tmp_path / "run" / "events.jsonl").read_bytes() == log
