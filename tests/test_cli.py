"""Commands, as a user types them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fedemu.cli import main
from fedemu.registry import ROOMS, kinds

QUICKSTART = str(Path(__file__).parents[1] / "scenarios" / "quickstart.yaml")


def test_check_has_nothing_to_say_on_stdout_about_a_sound_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    """Faults are for stdout; that there are none is for people."""
    assert main(["check", QUICKSTART]) == 0
    assert capsys.readouterr() == ("", f"{QUICKSTART}: no faults, 1 run\n")


def test_check_prints_every_fault_of_every_file_and_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """file:line: key: fault, for the second file as for the first."""
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    text = Path(QUICKSTART).read_text()
    one.write_text(text.replace("seed: 1", "sede: 1").replace("count: 14", "count: none"))
    two.write_text("a: [")
    assert main(["check", str(one), QUICKSTART, str(two)]) == 2
    out = capsys.readouterr().out.splitlines()
    line = text.splitlines().index("seed: 1") + 1
    assert out[0] == f"{one}:{line}: sede: 'sede' is not a key here; did you mean 'seed'?"
    assert "clients.wifi.count: 'none' is not a whole number" in out[1]
    assert out[2].startswith(f"{two}:1: yaml: ")
    assert len(out) == 3


def test_kinds_lists_every_kind_of_every_room(capsys: pytest.CaptureFixture[str]) -> None:
    """A room's name, then its kinds, each with its keys."""
    assert main(["kinds"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for room in ROOMS:
        at = lines.index(room)
        assert [line.split()[0] for line in lines[at + 1 :] if line[:3].strip()][: len(kinds(room))] == kinds(room)
    assert main(["kinds", "partitioners"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("partitioners\n")
    assert "alpha: number above 0, required; concentration" in out
    assert "strategies" not in out


def test_schema_is_json_schema(capsys: pytest.CaptureFixture[str]) -> None:
    """Draft 2020-12; nothing but what is known."""
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["additionalProperties"] is False
    assert "name" not in schema["required"]


@pytest.mark.parametrize(
    "arguments", [[], ["chek"], ["check"], ["kinds", "stratgies"], ["replay"], ["replay", "a", "b"], ["verify"]]
)
def test_faulty_arguments_exit_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """argparse's own status is the contract's."""
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert capsys.readouterr().err.startswith("usage: fedemu")


def test_a_kind_of_ones_own_is_found_in_the_working_directory(tmp_path: Path) -> None:
    """The installed command does not have the working directory on its path by itself."""
    (tmp_path / "users_partition.py").write_text("def halves(*, first: float): ...\n")
    scenario = Path(QUICKSTART).read_text().replace("{kind: dirichlet, alpha: 1.0}", "{kind: 'users_partition:halves'}")
    (tmp_path / "own.yaml").write_text(scenario)
    code = "import sys; sys.path.remove(''); from fedemu.cli import main; sys.exit(main(['check', 'own.yaml']))"
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (2, "")
    assert run.stdout.endswith("partition.first: missing\n")


TINY = """\
dataset: {kind: digits}
partition: {kind: iid}
model: {kind: softmax}
strategy: {kind: fedavg}
clients:
  phones:
    count: 2
    device: {kind: constant, per_example: 0.1ms}
    link: {delay: 40ms}
stop: {rounds: 2}
compute: {kind: inline}
"""


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)
    return "tiny.yaml"


def test_replay_tells_that_a_run_comes_back(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 0 and one line, over the recorded transport and over the other; progress is on stderr, and can be off."""
    assert main(["run", tiny, "--quiet", "--out", "run"]) == 0
    events = len(Path("run/events.jsonl").read_text().splitlines())
    digest = json.loads(Path("run/result.json").read_text())["digest"]
    capsys.readouterr()
    for transport in ("memory", "grpc", "grpc-unix"):
        assert main(["replay", "run", "--quiet", "--transport", transport]) == 0
        assert capsys.readouterr() == (f"run: identical, {events} events, digest {digest}\n", "")
    assert main(["replay", "run"]) == 0
    assert "2 clients, 650 parameters" in capsys.readouterr().err


def test_replay_exits_1_where_a_cell_differs(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The first of two seeds was changed; the second is told, too."""
    assert main(["run", tiny, "--quiet", "--out", "grid", "--set", "repeat=2"]) == 0
    log = Path("grid/seed-1/events.jsonl")
    log.write_text(log.read_text().replace('"accuracy":', '"accuracy":1', 1))
    capsys.readouterr()
    assert main(["replay", "grid"]) == 1
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert re.fullmatch(r"grid/seed-1: differs at line \d+ of \d+, in accuracy", lines[0])
    assert [line.split()[0] for line in lines[1:3]] == ["recorded", "replayed"]
    assert lines[3].startswith("grid/seed-2: identical, ")
    assert err == ""


def test_replay_of_what_cannot_be_replayed_exits_2(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No directory; a run on the real clock, for which there is `verify`."""
    assert main(["replay", "nowhere"]) == 2
    assert capsys.readouterr().out.startswith("nowhere:1: replay: is not a directory")
    assert main(["run", tiny, "--quiet", "--clock", "real", "--out", "run"]) == 0
    capsys.readouterr()
    assert main(["replay", "run"]) == 2
    out = capsys.readouterr().out
    assert out.startswith("run/scenario.yaml:1: clock: ")
    assert "`fedemu verify`" in out


def test_verify_prints_how_far_the_clocks_agree(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Tables and a summary on stdout; on stderr, before the real run, how long it takes: two rounds of 0.15 s."""
    assert main(["verify", tiny, "--set", "name=small", "--seed", "3", "--out", "both"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("round  emulated s  measured s  error %\n    1      0.15")
    assert re.search(r"^round times agree within .* 2 of 2 rounds compared$", out, re.MULTILINE)
    before, announced, after = err.partition("fedemu: now in real time, which takes 304ms")
    assert announced
    assert "small: seed 3" in before
    assert "small: seed 3" in after
    assert sorted(path.name for path in Path("both").iterdir()) == ["real", "virtual"]
    assert main(["verify", tiny, "--quiet"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--set", "repeat=2"], "tiny.yaml:1: matrix: 2 runs cannot be compared at once"),
        (["--out", "."], "--out:1: .: exists already"),
        (["--set", "clock=wall"], "--set:1: clock: "),
    ],
)
def test_verify_of_a_faulty_scenario_exits_2(
    tiny: str, arguments: list[str], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing runs."""
    assert main(["verify", tiny, *arguments]) == 2
    out, err = capsys.readouterr()
    assert out.startswith(fault)
    assert err == ""


@pytest.mark.parametrize("transport", ["memory", "grpc-unix"])
def test_serve_refuses_transports_that_end_in_this_process(
    tiny: str, transport: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As an option and in the scenario; a Unix socket is an address to listen at."""
    serve = ["serve", tiny, "--listen", "127.0.0.1:0"]
    assert main([*serve, "--transport", transport]) == 2
    assert f"{transport!r} does not reach clients elsewhere" in capsys.readouterr().out
    Path(tiny).write_text(f"{TINY}transport: {transport}\n")
    assert main(serve) == 2
    assert f"transport: {transport!r} cannot be served" in capsys.readouterr().out
