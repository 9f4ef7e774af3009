"""A real Prometheus on a free port, with a directory of its own; and promtool."""

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

MISSING = [name for name in ("prometheus", "promtool") if shutil.which(name) is None]

needs_prometheus = pytest.mark.skipif(
    bool(MISSING), reason=f"{' and '.join(MISSING)} not found; Debian has both: apt-get install prometheus"
)


class Prometheus:
    """Answers queries."""

    def __init__(self, address: str) -> None:
        self._address = address

    def query(self, expression: str, at: float) -> list[dict[str, Any]]:
        """Return the result of an instant query: `metric` and `value` or `values` of each series."""
        return self._ask("query", query=expression, time=f"{at:.3f}")["result"]

    def ever(self, expression: str, start: float, end: float) -> list[dict[str, str]]:
        """Return the labels of what a query gives a number for at some time of a range, looked at every second."""
        asked = {"query": expression, "start": f"{start:.3f}", "end": f"{end:.3f}", "step": "1"}
        found = self._ask("query_range", **asked)["result"]
        return [it["metric"] for it in found if any(value != "NaN" for _, value in it["values"])]

    def series(self, selector: str, start: float, end: float) -> list[dict[str, str]]:
        """Return the labels of all series in a time range."""
        return self._ask("series", **{"match[]": selector}, start=f"{start:.3f}", end=f"{end:.3f}")

    def targets(self) -> list[dict[str, Any]]:
        """Return what is scraped, and how it goes."""
        return self._ask("targets")["activeTargets"]

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._address}/-/ready"):
                return True
        except OSError:
            return False

    def _ask(self, what: str, **parameters: str) -> Any:
        address = f"{self._address}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(address) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error


@contextmanager
def prometheus(folder: Path, *, config: str = "{}") -> Iterator[Prometheus]:
    """Run a Prometheus inside the context.

    Args:
        folder: `data` in it may hold what promtool has written.
        config: Content of its configuration file.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "prometheus.yml").write_text(config)
    command = [
        "prometheus",
        "--config.file=prometheus.yml",
        "--storage.tsdb.path=data",
        "--storage.tsdb.retention.time=100y",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, cwd=folder, stdout=log, stderr=log) as process:
        try:
            it = Prometheus(f"http://127.0.0.1:{port}")
            end = time.monotonic() + 60
            while not it.is_ready():
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < end, (folder / "log").read_text()
                time.sleep(0.05)
            yield it
        finally:
            process.terminate()


def promtool(*arguments: str | Path) -> str:
    """Run promtool; what it says is shown where it fails."""
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def backfill(text: Path, folder: Path) -> None:
    """Write an export to where `prometheus(folder)` looks."""
    promtool("tsdb", "create-blocks-from", "openmetrics", text, folder / "data")
