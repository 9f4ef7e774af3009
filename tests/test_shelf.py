"""What clients remember on disk: over a process's death at any moment, and never another run's."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from fedemu.client import Memory
from fedemu.errors import RunError
from fedemu.loop import standstill
from fedemu.net.grpc import GrpcTransport
from fedemu.net.memory import MemoryTransport
from fedemu.shelf import Shelf
from fedemu.types import Trained


def learning(name: str = "ours", seed: int = 1, size: int = 3) -> Any:
    """What a shelf asks of a run."""
    return SimpleNamespace(scenario=SimpleNamespace(name=name, seed=seed), layout=SimpleNamespace(size=size))


def vector(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers)


def taken(folder: Path, said: list[str] | None = None, **run: Any) -> Memory:
    return Shelf(folder, (said if said is not None else []).append).memory("phones/0", learning(**run))


def test_what_was_learned_is_there_before_the_update_is_sent_and_holds_if_it_was_accepted(tmp_path: Path) -> None:
    """Round 1 accepted, round 2 trained: who comes then has round 2 if the server has it, or else round 1."""
    memory = taken(tmp_path)
    memory.agree(None)
    memory.learn((1, 1), {"c": vector(1, 1, 1)})
    memory.agree((1, 1))
    memory.learn((2, 1), {"c": vector(2, 2, 2)})
    for accepted, c in (((1, 1), 1.0), ((2, 1), 2.0)):
        said: list[str] = []
        again = taken(tmp_path, said)
        again.agree(accepted)
        assert (again.state["c"].tolist(), again.task, said) == ([c] * 3, accepted, [])
    assert [path.name for path in tmp_path.iterdir()] == ["phones-0.safetensors"]


def test_an_algorithm_that_remembers_nothing_writes_nothing(tmp_path: Path) -> None:
    """FedAvg's state has no vectors."""
    memory = taken(tmp_path)
    memory.learn((1, 1), {})
    memory.commit((1, 1))
    memory.learn((2, 1), {})
    assert list(tmp_path.iterdir()) == []


def test_the_very_vectors_that_were_remembered_can_be_learned(tmp_path: Path) -> None:
    """A client of SCAFFOLD without examples returns its memory as it was."""
    memory = taken(tmp_path)
    memory.state = {"c": vector(1, 2, 3)}
    memory.learn((2, 1), memory.state)
    again = taken(tmp_path)
    assert again.learned is not None
    assert again.state["c"].tolist() == again.learned[1]["c"].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("run", "text"),
    [
        ({"name": "theirs"}, "scenario 'ours' there, 'theirs' here"),
        ({"seed": 2}, "seed 1 there, 2 here"),
        ({"size": 4}, "parameters 3 there, 4 here"),
    ],
)
def test_another_runs_memory_is_never_taken(tmp_path: Path, run: dict[str, Any], text: str) -> None:
    """It starts empty and says so; and then the file is this run's."""
    taken(tmp_path).learn((1, 1), {"c": vector(1, 1, 1)})
    said: list[str] = []
    memory = taken(tmp_path, said, **run)
    assert (memory.state, memory.task, memory.learned) == ({}, None, None)
    path = tmp_path / "phones-0.safetensors"
    assert said == [f"{path} is not of this run: {text}; starting with nothing remembered"]
    memory.learn((1, 1), {"c": torch.ones(run.get("size", 3))})
    assert taken(tmp_path, said, **run).learned is not None
    assert len(said) == 1


def test_a_run_that_begins_anew_has_no_memory_of_the_last_one(tmp_path: Path) -> None:
    """Same name, same seed, but the server has no update of this client: it is another run all the same."""
    memory = taken(tmp_path)
    memory.learn((1, 1), {"c": vector(1, 1, 1)})
    memory.commit((1, 1))
    memory.learn((2, 1), {"c": vector(2, 2, 2)})
    said: list[str] = []
    again = taken(tmp_path, said)
    again.agree(None)
    assert again.state == {}
    assert said == ["the server begins anew, and so does this client: what it remembered is forgotten"]


def test_a_memory_that_others_have_outrun_is_kept_and_says_so(tmp_path: Path) -> None:
    """The slot was another process's in rounds 3 to 5, with a directory of its own."""
    taken(tmp_path).learn((2, 1), {"c": vector(2, 2, 2)})
    said: list[str] = []
    again = taken(tmp_path, said)
    again.agree((2, 1))
    again.agree((5, 1))
    assert again.state["c"].tolist() == [2, 2, 2]
    assert said == [
        "this client remembers round 2, turn 1, but the server has an update of round 5, turn 1 from another one"
    ]


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "no facts", "strange facts", "strange task"])
def test_a_damaged_file_is_as_none(tmp_path: Path, damage: str) -> None:
    """One line says so, and the next training replaces it."""
    taken(tmp_path).learn((1, 1), {"c": vector(1, 1, 1)})
    path = tmp_path / "phones-0.safetensors"
    whole = path.read_bytes()
    match damage:
        case "cut":
            path.write_bytes(whole[:-1])
        case "garbage":
            path.write_bytes(b"\xff" * 100)
        case "empty":
            path.write_bytes(b"")
        case "no facts":
            save_file({"c": vector(1)}, path)
        case "strange facts":
            save_file({"c": vector(1)}, path, {"facts": "[1]"})
        case _:
            path.write_bytes(whole.replace(b"[1, 1]", b"[1,{}]"))
    said: list[str] = []
    memory = taken(tmp_path, said)
    assert (memory.state, memory.learned) == ({}, None)
    [line] = said
    assert line.startswith(f"{path} ")
    assert line.endswith("; starting with nothing remembered")
    memory.learn((1, 1), {"c": vector(1, 1, 1)})
    assert taken(tmp_path, said).learned is not None


def test_a_directory_that_cannot_be_written_is_an_error_at_once(tmp_path: Path) -> None:
    """A file stands where it should be, or where its parent should."""
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RunError, match=f"{folder} cannot be written: (File exists|Not a directory)"):
            Shelf(folder, print)


def test_a_disk_that_is_full_ends_the_client(tmp_path: Path) -> None:
    """An update whose memory is lost must not be sent."""
    memory = taken(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    (tmp_path / "gone").write_text("")
    with pytest.raises(RunError, match=r"phones-0\.safetensors cannot be written"):
        memory.learn((1, 1), {"c": vector(1, 1, 1)})


def test_without_a_directory_a_slots_memory_lasts_as_long_as_the_process(tmp_path: Path) -> None:
    """From connection to connection; another slot's or another run's is another."""
    shelf = Shelf(None, print)
    memory = shelf.memory("phones/0", learning())
    assert shelf.memory("phones/0", learning()) is memory
    for client, run in (("phones/1", learning()), ("phones/0", learning(seed=2))):
        assert shelf.memory(client, run) is not memory


# --- in a run


@pytest.mark.parametrize("transport", [MemoryTransport, GrpcTransport], ids=["memory", "grpc"])
@pytest.mark.parametrize(
    ("dies", "remembered"),
    [(1.0, [0, 1]), (1.75, [0, 1]), (2.75, [1, 2])],
    ids=["in training", "with its update on the way", "with its answer on the way"],
)
def test_a_process_that_dies_at_any_moment_comes_back_with_what_the_server_thinks(
    toy: Any, tmp_path: Path, transport: type, dies: float, remembered: list[int]
) -> None:
    """It has the task at 0.5 s and trains until 1.5 s; the server has the update before 2.5 s, and it would have the
    answer 0.5 s later. Round 1 closes at 4 s, when another client has answered.

    Who comes at 3.5 s finds nothing but the directory. Of round 1's training it knows in round 2 if the server has it.
    """

    def train(job: Any) -> tuple[Trained, dict[str, torch.Tensor]]:
        seen = job.state.get("seen", torch.zeros(1))
        return Trained(torch.ones(3), 1, 1, 0.5), {"seen": seen + 1}

    async def meanwhile(federation: Any, rejoin: Any) -> None:
        await federation.clock.sleep_until(dies)
        await standstill(federation.conversations["phones/0"].aclose(), "die")
        await federation.server.wait_until_gone("phones/0")
        await federation.clock.sleep_until(3.5)
        rejoin("phones/0")

    mortal = toy.Client(train=train, up=toy.way(rate=800.0), down=toy.way(delay=0.5), memory=lambda: taken(tmp_path))
    clients = {"phones/0": mortal, "phones/1": toy.Client(takes=(4.0, 1.0))}
    played = toy.play(clients, transport=transport, stop={"rounds": 3}, meanwhile=meanwhile)
    jobs = [job for job in played.jobs if job.client == "phones/0"]
    assert [job.state["seen"].item() if job.state else 0 for job in jobs] == [0, *remembered]
    [arrived, *_] = played.at("UpdateReceived", client="phones/0")
    assert (2.0 < arrived < 2.5) == bool(remembered[0])
    assert [e.aggregated for e in played.of("RoundClosed")] == [1 + remembered[0], 2, 2]
    left = taken(tmp_path)
    assert left.learned is not None
    assert (left.learned[0], left.learned[1]["seen"].item()) == ((3, 1), remembered[-1] + 1)
