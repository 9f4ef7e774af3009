"""Importers: what a file says, and where it says nonsense."""

import os
import re
import zipfile
from pathlib import Path

import pytest

from fedemu.links.traces import read

FOLDER = Path(os.environ.get("FEDEMU_DATA", "/nowhere")) / "traces"

SABRE = """[
 {"duration_ms": 1000, "bandwidth_kbps": 1200, "latency_ms": 20},
 {"duration_ms": 500, "bandwidth_kbps": 0}
]"""
GNETTRACK = """Timestamp,Speed,DL_bitrate,UL_bitrate,State
2019.12.16_13.40.04,0,1200,120,D
2019.12.16_13.40.05,0,2400,0,D
2019.12.16_13.40.05,0,1200,0,D
2019.12.16_13.40.08,0,1200,24,D
"""


def written(folder: Path, text: str) -> str:
    path = folder / "trace"
    path.write_text(text)
    return str(path)


def test_mahimahi_is_a_millisecond_a_line(tmp_path: Path) -> None:
    """Three packets in 4 ms = 9 Mbit/s."""
    trace = read(written(tmp_path, "1\n1\n\n4\n"))
    assert (trace.counts.tolist(), trace.rate) == ([0, 2, 2, 2, 3], 9e6)


def test_pensieve_s_rates_hold_until_their_own_line(tmp_path: Path) -> None:
    """1.2 Mbit/s from 10 to 11 s, 0 from 11 to 12 s: 100 packets in the first of two seconds; 5 Mbit/s has no time."""
    trace = read(written(tmp_path, "10.0\t5.0\n11.0 1.2\n12.0 0\n"))
    assert (trace.duration, trace.counts[1000], trace.counts[-1]) == (2.0, 100, 100)


def test_sabre_s_entries_are_steps(tmp_path: Path) -> None:
    """1.2 Mbit/s for a second and nothing for half of one: 100 packets in 1.5 s."""
    trace = read(written(tmp_path, SABRE))
    assert (trace.duration, trace.counts[1000], trace.counts[-1]) == (1.5, 100, 100)


def test_gnettrack_has_two_directions(tmp_path: Path) -> None:
    """Down 1.2 Mbit/s, then (2.4 + 1.2) / 2 for the 3 s until the next row, then 1.2: 100, 450, 100 packets in 5 s."""
    down, up = (read(written(tmp_path, GNETTRACK), format) for format in (None, "gnettrack-up"))
    assert [down.counts[ms] for ms in (1000, 4000, 5000)] == [100, 550, 650]
    assert [up.counts[ms] for ms in (1000, 4000, 5000)] == [10, 10, 12]
    assert down.duration == up.duration == 5.0


def test_a_file_in_an_archive_is_read_where_it_is(tmp_path: Path) -> None:
    """The same trace, and an archive or member that is not there is named."""
    archive = tmp_path / "logs.zip"
    with zipfile.ZipFile(archive, "w") as members:
        members.writestr("5G/a.csv", GNETTRACK)
    assert read(f"{archive}/5G/a.csv").rate == read(written(tmp_path, GNETTRACK)).rate
    with pytest.raises(ValueError, match=re.escape("has no b.csv; write logs.zip/MEMBER")):
        read(f"{archive}/b.csv")
    with pytest.raises(ValueError, match=r"has many files; write logs\.zip/MEMBER"):
        read(str(archive))
    archive.write_text("no archive")
    with pytest.raises(ValueError, match="cannot be read: File is not a zip file"):
        read(f"{archive}/a.csv")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A scenario's fault, as every other."""
    with pytest.raises(ValueError, match="gone cannot be read: No such file"):
        read(str(tmp_path / "gone"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\n2\nx\n", "FILE:3: 'x' is not a millisecond"),
        ("1\n-2\n", "FILE:2: '-2' is not a millisecond"),
        ("1\n2.5\n", "FILE:2: '2.5' is not a millisecond"),
        ("5\n\n4\n", "FILE:3: 4 comes after 5; expected milliseconds in order"),
        ("", "FILE: the trace is empty"),
        ("\n\n", "FILE: the trace is empty"),
        ("0\n0\n", "FILE: the trace is over at millisecond 0"),
        ("1600000000000\n", "FILE: the trace lasts 1.6e+09 s; expected a day at most"),
        ("a b c\n", "FILE:1: 'a b c' is in none of the formats mahimahi, sabre, pensieve, gnettrack, gnettrack-up"),
        ("0 1\n1 x\n", "FILE:2: 'x' is not a rate in Mbit/s"),
        ("0 1\n1 -1\n", "FILE:2: '-1' is not a rate in Mbit/s"),
        ("0 1\n1 inf\n", "FILE:2: 'inf' is not a rate in Mbit/s"),
        ("0 1\n1\n", "FILE:2: '1' is not a time and a rate"),
        ("1 1\n1 1\n", "FILE:2: 1 comes after 1; expected times in order"),
        ("0 1\n", "FILE: the trace is empty"),
        ("0 1\n1 0\n", "FILE: the trace has no opportunity to send"),
        ("[{", "FILE:1: not JSON"),
        ("{}", "FILE:1: not a list"),
        ("[]", "FILE: the trace is empty"),
        (SABRE.replace(": 0}", ': "x"}'), "FILE:3: 'x' is not a bandwidth_kbps"),
        (SABRE.replace("500", "true"), "FILE:3: True is not a duration_ms"),
        (SABRE.replace("500", "0"), "FILE:3: duration_ms is 0"),
        (SABRE.replace("bandwidth_kbps", "rate", 1), "FILE:2: no bandwidth_kbps"),
        ("[1]", "FILE:1: no duration_ms"),
        ("a,b\n1,2\n", "FILE:1: no column DL_bitrate, Timestamp"),
        (GNETTRACK.replace(",2400,", ",-,"), "FILE:3: '-' is not a DL_bitrate in kbit/s"),
        (GNETTRACK.replace("40.08", "40.88"), "FILE:5: '2019.12.16_13.40.88' is not a time"),
        (GNETTRACK.replace("40.08", "39.08"), "FILE:5: 2019.12.16_13.39.08 is 57 s back"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, text: str, message: str) -> None:
    """File, line, what was found and what was expected."""
    path = written(tmp_path, text)
    with pytest.raises(ValueError, match="^" + re.escape(message.replace("FILE", path))):
        read(path)


def test_a_format_that_is_told_is_not_guessed(tmp_path: Path) -> None:
    """Two columns are no milliseconds."""
    with pytest.raises(ValueError, match="'0 1' is not a millisecond"):
        read(written(tmp_path, "0 1\n1 1\n"), "mahimahi")


@pytest.mark.parametrize(
    ("file", "rate"),
    [
        ("mahimahi/TMobile-LTE-driving.down", 12.8),
        ("mahimahi/ATT-LTE-driving.down", 5.2),
        ("mahimahi/ATT-LTE-driving.up", 0.83),
        ("sabre_mmsys18/example/mmsys18/3Glogs/report.2010-09-13_1003CEST.json", None),
        ("sabre_mmsys18/example/mmsys18/4Glogs/report_bicycle_0001.json", None),
        ("sabre_mmsys18/example/mmsys18/4Glogs/report_foot_0008.json", None),
        ("confiwent/cooked_3gp/norway_bus_1", None),
        ("confiwent/traces_oboe/oboe_trace_0.txt", None),
        ("uccmisl_5G/5G-production-dataset.zip/5G-production-dataset/Download/Static/B_2020.02.27_18.39.27.csv", None),
    ],
)
def test_the_published_traces_have_the_published_rates(file: str, rate: float | None) -> None:
    """Mbit/s, to the digits that are printed; files without a printed rate are at least read, and carry bytes."""
    there = next(parent for parent in (FOLDER / file, *(FOLDER / file).parents) if parent.exists())
    if not (there.is_file() and str(FOLDER) in str(there)):
        pytest.skip(f"FEDEMU_DATA has no traces/{file}")
    trace = read(str(FOLDER / file))
    assert trace.rate > 1e5
    if rate is not None:
        assert float(f"{trace.rate / 1e6:.{3 if rate > 10 else 2}g}") == rate
