"""The buffer: what fits stays where it is, what does not lies in a file without a name, and both end with their use."""

import gc
import json
import resource
import signal
import tempfile
import threading
from pathlib import Path

import pytest
import torch

from fedemu import experiment
from fedemu.compute._base import Learned
from fedemu.compute._buffer import SMALL, Buffer
from fedemu.compute.inline import inline
from fedemu.errors import RunError
from fedemu.scenario import load
from fedemu.types import Trained

NUMBERS = SMALL // 4
"""Of a vector that is just counted: 64 KiB."""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of temporary files, empty."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def mapped(folder: Path) -> int:
    """Return how many files of a directory this process has in its memory."""
    return sum(str(folder) in line for line in Path("/proc/self/maps").read_text().splitlines())


def test_what_fits_stays_the_same_object(files: Path) -> None:
    """Two of 64 KiB in a buffer of 128 KiB; nothing is written."""
    buffer = Buffer(2 * SMALL)
    vectors = [torch.ones(NUMBERS), torch.ones(NUMBERS)]
    assert all(buffer.keep(vector) is vector for vector in vectors)
    assert (buffer.held, buffer.peak, buffer.filed) == (2 * SMALL, 2 * SMALL, 0)
    assert mapped(files) == 0


def test_a_full_disk_is_an_error_that_says_what_to_do(files: Path) -> None:
    """Files of this process may have 1,000 bytes; the vector has 64 KiB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # else it ends the process
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(RunError) as caught:
            Buffer(0).keep(torch.ones(NUMBERS))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert str(caught.value).startswith(f"{SMALL} bytes cannot be written to {files}: ")
    assert "None" not in str(caught.value)
    assert str(caught.value).endswith("; free some, set TMPDIR, or raise compute.buffer")


def test_what_does_not_fit_lies_in_a_file_that_has_no_name(files: Path) -> None:
    """Bit for bit the same numbers, not those in memory; the directory is empty, and the file goes with the vector."""
    buffer = Buffer(SMALL)
    first, second = torch.randn(NUMBERS), torch.randn(NUMBERS)
    assert buffer.keep(first) is first
    kept = buffer.keep(second)
    assert kept is not second
    assert (kept.dtype, kept.shape) == (second.dtype, second.shape)
    assert torch.equal(kept, second)
    assert list(files.iterdir()) == []
    assert mapped(files) == 1
    assert (buffer.held, buffer.filed) == (SMALL, SMALL)
    second.zero_()
    assert kept.any()
    del kept
    gc.collect()
    assert mapped(files) == 0


def test_writing_to_a_vector_in_a_file_changes_the_vector_alone(files: Path) -> None:
    """Who averages may add in place; nothing of it comes back to what was given."""
    given = torch.ones(NUMBERS)
    kept = Buffer(0).keep(given)
    kept += 1
    assert torch.equal(kept, torch.full((NUMBERS,), 2.0))
    assert torch.equal(given, torch.ones(NUMBERS))


def test_a_vector_that_is_dropped_makes_room_for_the_next(files: Path) -> None:
    """One at a time fits for ever; peak is one."""
    buffer = Buffer(SMALL)
    for _ in range(3):
        vector = torch.ones(NUMBERS)
        assert buffer.keep(vector) is vector
        del vector
        gc.collect()
        assert buffer.held == 0
    assert (buffer.peak, buffer.filed) == (SMALL, 0)


def test_small_vectors_are_not_counted(files: Path) -> None:
    """One number less than 64 KiB stays in a buffer for nothing."""
    buffer = Buffer(0)
    vector = torch.ones(NUMBERS - 1)
    assert buffer.keep(vector) is vector
    assert (buffer.held, buffer.filed) == (0, 0)


def test_a_part_of_a_vector_is_kept_as_that_part(files: Path) -> None:
    """Every second number of a longer one: strides do not reach the file."""
    whole = torch.arange(2.0 * NUMBERS)
    assert torch.equal(Buffer(0).keep(whole[::2]), whole[::2])


def test_threads_may_share_a_buffer(files: Path) -> None:
    """8 threads keep and drop 50 vectors each: nothing is lost, and all room comes back."""
    buffer, wrong = Buffer(4 * SMALL), []

    def work(number: int) -> None:
        for turn in range(50):
            vector = torch.full((NUMBERS,), float(number * 50 + turn))
            kept = buffer.keep(vector)
            if not torch.equal(kept, vector):
                wrong.append((number, turn))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    assert wrong == []
    assert buffer.held == 0
    assert SMALL <= buffer.peak <= 4 * SMALL


def test_an_update_is_kept_by_its_delta(files: Path) -> None:
    """The rest of what was learned is what it was."""
    learned = Learned(Trained(torch.ones(NUMBERS), 3, 2, 0.5), {"left": torch.ones(2)})
    kept = learned.kept_in(Buffer(0))
    assert mapped(files) == 1
    assert torch.equal(kept.trained.delta, learned.trained.delta)
    assert kept.trained[1:] == learned.trained[1:]
    assert kept.state is learned.state


SCENARIO = """\
dataset: {{kind: digits, examples: 100}}
partition: {{kind: iid}}
model: {{kind: twonn}}
strategy: {{kind: fedavg}}
transport: {transport}
clients:
  phones: {{count: 3, device: {{kind: constant, per_example: 1ms}}, link: {{delay: 40ms, rate: 1Mbit/s}}}}
stop: {{rounds: 2}}
compute: {{kind: {kind}, buffer: {buffer}}}
"""


@pytest.mark.parametrize("transport", ["memory", "grpc"])
def test_where_updates_wait_changes_no_event(tmp_path: Path, transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The digest with no memory to wait in is that with plenty; and so is the model's accuracy."""
    outcomes = []
    for buffer in ("1GB", "0B"):
        path = tmp_path / f"small-{buffer}.yaml"
        path.write_text("name: small\n" + SCENARIO.format(transport=transport, buffer=buffer, kind="inline"))
        cell = load(path).cells[0]
        with experiment.workers(cell.scenario) as compute:
            result = experiment.run(cell, compute)
            outcomes.append((result["digest"], json.dumps(result["final"])))
            filed = compute.buffer.filed
        assert (filed > 0) == (buffer == "0B")
    assert outcomes[0] == outcomes[1]


def test_inline_takes_the_size_of_its_buffer() -> None:
    """5 bytes leave room for nothing that counts."""
    with inline(buffer=5)() as compute:
        assert compute.buffer.keep(vector := torch.ones(NUMBERS)) is not vector
