"""A day of a federation in a real Prometheus: what it answers for an emulated time is what events.jsonl says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docker.prometheus import backfill, needs_prometheus, prometheus

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), needs_prometheus]

DAY = Path(__file__).parents[2] / "scenarios" / "day.yaml"
HOURS = 24
START = 1_700_000_000
END = START + HOURS * 3600 + 1


def test_24_emulated_hours_backfilled_into_prometheus_say_what_the_log_says(tmp_path: Path) -> None:
    """200 phones, some 1,450 rounds: every accuracy at its millisecond, and the last counters those of result.json."""
    fedemu = [sys.executable, "-m", "fedemu"]
    subprocess.run([*fedemu, "run", DAY, "--quiet", "--out", tmp_path / "day"], check=True, capture_output=True)
    text = tmp_path / "day.om"
    export = [*fedemu, "export", "--openmetrics", tmp_path / "day", "--start", str(START), "-o", text]
    subprocess.run(export, check=True, capture_output=True)
    assert text.stat().st_size < 100e6
    backfill(text, tmp_path)

    records = [json.loads(line) for line in (tmp_path / "day" / "events.jsonl").read_text().splitlines()]
    result = json.loads((tmp_path / "day" / "result.json").read_text())
    logged = {round(START + r["at"], 3): r["accuracy"] for r in records if r["event"] == "Evaluated"}
    assert len(logged) >= HOURS
    assert max(logged) > START + 0.95 * HOURS * 3600
    with prometheus(tmp_path) as server:
        known: list[float] = []
        for at, accuracy in logged.items():
            [found] = server.query("fedemu_accuracy_ratio", at)
            assert found["metric"] == {"__name__": "fedemu_accuracy_ratio", "run": "day", "clock": "virtual"}
            assert float(found["value"][1]) == accuracy
            before = server.query("fedemu_accuracy_ratio", at - 0.001)
            assert [float(it["value"][1]) for it in before] == known
            known = [accuracy]
        [stored] = server.query(f"fedemu_accuracy_ratio[{HOURS + 1}h]", END)
        changes = dict.fromkeys(float(value) for _, value in stored["values"])
        assert list(changes) == list(dict.fromkeys(logged.values()))

        def total(query: str) -> float:
            [found] = server.query(query, END)
            return float(found["value"][1])

        assert total('sum(fedemu_wire_bytes_total{direction="up"})') == result["bytes"]["up"]
        assert total('sum(fedemu_updates_total{outcome="aggregated"})') == result["updates"]["aggregated"]
        assert total("fedemu_round_seconds_count") == result["final"]["round"]


def test_the_memory_of_an_export_does_not_grow_with_the_log(tmp_path: Path) -> None:
    """Ten times as many events of 200 clients, within 20 MB of the memory of the few."""
    used = []
    for rounds in (300, 3000):
        folder = tmp_path / str(rounds)
        folder.mkdir()
        with (folder / "events.jsonl").open("w") as log:
            log.write('{"at":0.0,"event":"RunStarted","name":"r","seed":1,"version":"1","clients":1,"parameters":1}\n')
            for number in range(rounds):
                at = {"at": 60.0 * number, "client": f"phones/{number % 200}", "group": "phones", "round": number}
                for event in ("TaskSent", "TaskReceived"):
                    sizes = {"attempt": 1, "bytes": 10, "version": 0}
                    log.write(json.dumps({**at, "event": event, **sizes}) + "\n")
            end = 60.0 * rounds
            log.write(f'{{"at":{end},"event":"RunFinished","reason":"rounds","time":{end}}}\n')
        (folder / "result.json").write_text('{"name": "r", "clock": "virtual", "target": null}')
        code = (
            "import sys, resource; from fedemu.cli import main; "
            "main(['export', '--openmetrics', sys.argv[1], '--start', '1700000000', '-o', sys.argv[2]]); "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        command = [sys.executable, "-c", code, folder, folder / "text.om"]
        used.append(int(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    assert used[1] - used[0] < 20_000, used
