"""The event log on disk is the events, byte for byte."""

import hashlib
import json
import math
from pathlib import Path

from fedemu.events import ClientJoined, DelayMeasured, Evaluated, RoundClosed, RunStarted
from fedemu.observers.jsonl import JsonLines

EVENTS = (
    RunStarted(at=0.0, name="größer", seed=1, version="0.1.0", clients=2, parameters=3),
    ClientJoined(at=0.0, client="phones/0", group="phones"),
    RoundClosed(at=1.5, round=1, aggregated=2, late=0, lost=0, duration=1.5),
    Evaluated(at=1.5, round=1, accuracy=0.5, loss=math.nan),
)


def test_every_event_is_one_line(tmp_path: Path) -> None:
    """Four events, four lines of JSON, in their order; nan is null."""
    path = tmp_path / "events.jsonl"
    with JsonLines(path) as log:
        for event in EVENTS:
            log(event)
    content = path.read_bytes()
    lines = content.decode().splitlines()
    assert lines[1] == '{"at":0.0,"event":"ClientJoined","client":"phones/0","group":"phones"}'
    assert [json.loads(line)["event"] for line in lines] == [type(event).__name__ for event in EVENTS]
    assert json.loads(lines[0])["name"] == "größer"
    assert json.loads(lines[3])["loss"] is None
    assert content.endswith(b"}\n")


def test_the_digest_is_that_of_the_file(tmp_path: Path) -> None:
    """sha256sum of the file says the same; without a file it is the same too."""
    path = tmp_path / "events.jsonl"
    with JsonLines(path) as log, JsonLines(None) as unwritten:
        for event in EVENTS:
            log(event)
            unwritten(event)
    assert log.digest == unwritten.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert list(tmp_path.iterdir()) == [path]


def test_who_follows_the_file_sees_whole_rounds(tmp_path: Path) -> None:
    """Three lines are there when the round has closed, before the file is."""
    path = tmp_path / "events.jsonl"
    with JsonLines(path) as log:
        for event in EVENTS:
            log(event)
        assert len(path.read_bytes().splitlines()) == 3


def test_a_measurement_is_no_part_of_the_log(tmp_path: Path) -> None:
    """What the real world did differs from run to run: neither the file nor the digest has it."""
    measured = DelayMeasured(at=1.0, group="phones", direction="up", requested=0.04, achieved=0.0403)
    with JsonLines(None) as plain, JsonLines(tmp_path / "events.jsonl") as log:
        for event in EVENTS:
            plain(event)
            log(event)
            log(measured)
    assert log.digest == plain.digest
    assert len((tmp_path / "events.jsonl").read_bytes().splitlines()) == len(EVENTS)
