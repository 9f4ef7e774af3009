"""A real Docker engine: its images, and compose projects that leave nothing behind."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
COMPOSE = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
SETTINGS = {
    "FEDEMU_IMAGE": "fedemu",
    "FEDEMU_ENROL": "6s",
    "FEDEMU_LINGER": "0s",
    "FEDEMU_BASE": "fedemu-base",
    "PROMETHEUS_IMAGE": "fedemu-prometheus",
    "PROMETHEUS_PORT": "",  # a free one
}


def missing() -> str:
    """Return why there can be no containers here; nothing if there can."""
    if shutil.which("docker") is None or not succeeds("docker", "info"):
        return "no Docker engine answers; `make engine` starts one on Debian, as root"
    if not succeeds(*COMPOSE, "version"):
        return "no docker-compose; `make engine` installs it on Debian, as root"
    can_make_one = os.geteuid() == 0 and shutil.which("debootstrap") is not None
    if not can_make_one and not succeeds("docker", "image", "inspect", "fedemu-base"):
        return "no image fedemu-base, and without root and debootstrap none can be made"
    return ""


def build() -> None:
    """Build the images; quick if they are there."""
    run(str(ROOT / "docker" / "image.sh"), patience=900)


def succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def run(
    *command: str, environment: Mapping[str, str] | None = None, status: int | None = 0, patience: float = 120
) -> str:
    """Run a command and return what it says on stdout and stderr.

    Args:
        command: The command.
        environment: Set beside this process's own.
        status: Which it must end with; None for any.
        patience: Seconds that it may take.
    """
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env={**os.environ, **(environment or {})},
        timeout=patience,
    )
    assert status in (None, done.returncode), f"{' '.join(command)}: status {done.returncode}\n{done.stdout}"
    return done.stdout


def says(container: str, pattern: str, patience: float = 90, times: int = 1) -> list[str]:
    """Wait until the log of a container has a pattern so many times; return all that match."""
    end = time.monotonic() + patience
    while len(found := re.findall(pattern, log := run("docker", "logs", container))) < times:
        assert time.monotonic() < end, f"not found in the log of {container}: {pattern}\n{log}"
        time.sleep(0.3)
    return found


def facts(container: str) -> dict[str, Any]:
    """Return what the engine knows of a container."""
    return json.loads(run("docker", "inspect", container))[0]


def free_port() -> str:
    """Return a port of this machine that nothing listens at."""
    with socket.socket() as it:
        it.bind(("", 0))
        return str(it.getsockname()[1])


def scenario(folder: Path, text: str) -> dict[str, str]:
    """Write a scenario where a container's user can read it; return the settings that name it."""
    place = folder / "scenarios"
    place.mkdir(mode=0o755)
    (place / "scenario.yaml").write_text(text)
    return {"FEDEMU_SCENARIOS": str(place), "FEDEMU_SCENARIO": "scenario.yaml"}


class Project:
    """A compose project of the files in docker/.

    Args:
        name: Of its containers, network and volumes.
        settings: What docker/compose.yaml takes from the environment.
        files: Names in docker/.
    """

    def __init__(self, name: str, settings: Mapping[str, str], files: Sequence[str]) -> None:
        self.name = name
        self._settings = {**SETTINGS, **settings, "COMPOSE_PROJECT_NAME": name}
        self._files = [argument for file in files for argument in ("--file", str(ROOT / "docker" / file))]

    def compose(self, *arguments: str, patience: float = 120) -> str:
        """Run docker-compose."""
        return run(*COMPOSE, *self._files, *arguments, environment=self._settings, patience=patience)

    def up(self, *arguments: str, **scale: int) -> None:
        """Start services, or all of them, with so many containers."""
        scales = [argument for each in scale.items() for argument in ("--scale", "{}={}".format(*each))]
        self.compose("up", "--detach", "--no-build", *scales, *arguments)

    def containers(self, service: str = "") -> list[str]:
        """Return the ids of a service's containers in the order of their numbers, stopped ones too."""
        labels = [f"label=com.docker.compose.project={self.name}"]
        labels += [f"label=com.docker.compose.service={service}"] if service else []
        filters = [argument for label in labels for argument in ("--filter", label)]
        shown = run("docker", "ps", "--all", "--format", "{{.Names}} {{.ID}}", *filters).split()
        named = dict(zip(shown[::2], shown[1::2], strict=True))
        return [named[name] for name in sorted(named, key=lambda it: int(re.findall(r"\d+", it)[-1]))]

    @property
    def server(self) -> str:
        [it] = self.containers("server")
        return it

    def finish(self, patience: float = 120) -> None:
        """Wait until the server has ended as it should; it may be started again meanwhile."""
        end = time.monotonic() + patience
        while (state := facts(self.server)["State"])["Status"] != "exited":
            assert time.monotonic() < end, "the server has not ended"
            time.sleep(0.3)
        assert state["ExitCode"] == 0

    def events(self) -> list[str]:
        """Return the lines of the log of events, so far; the last may be half a line."""
        return run("docker", "exec", self.server, "cat", "/runs/run/events.jsonl").splitlines()

    def fetch(self, folder: Path) -> Path:
        """Copy the run directory out of the server's container, which may have ended."""
        run("docker", "cp", f"{self.server}:/runs/run", str(folder / "served"))
        return folder / "served"

    def logs(self) -> str:
        return self.compose("logs", "--no-color", "--tail=60")


@contextmanager
def project(
    name: str, settings: Mapping[str, str] | None = None, *, files: Sequence[str] = ("compose.yaml",)
) -> Iterator[Project]:
    """A project that is gone after the context; what its containers said is shown where that fails."""
    it = Project(f"fedemu-test-{name}", settings or {}, files)
    it.compose("down", "--volumes", "--timeout", "0")  # of tests that were killed
    try:
        yield it
    except BaseException:
        sys.stderr.write(it.logs())
        raise
    finally:
        it.compose("down", "--volumes", "--timeout", "0")
