"""Commands, as a user types them."""

import json
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


@pytest.mark.parametrize("arguments", [[], ["chek"], ["check"], ["kinds", "stratgies"]])
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
