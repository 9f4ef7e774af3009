"""What `fedemu verify` finds with the shipped scenario: the two clocks tell the same times."""

from pathlib import Path

import pytest

from fedemu.cli import main

SCENARIO = Path(__file__).parents[2] / "scenarios" / "two-clocks.yaml"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_thirty_rounds_of_twenty_clients_agree(capsys: pytest.CaptureFixture[str]) -> None:
    """Within 2 % (median) and 5 % (worst), all of them compared; a calm machine shows 0.05 % and 0.11 %."""
    assert main(["verify", str(SCENARIO), "--quiet"]) == 0
    summary = capsys.readouterr().out.splitlines()[-1]
    words = summary.split()
    assert summary.endswith("30 of 30 rounds compared")
    median, worst = float(words[words.index("within") + 1]), float(words[words.index("and") + 1])
    assert median < 2
    assert worst < 5
