"""A device of measured speed: times per example from a file, one training after the other."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from fedemu.devices._base import Device, Work
from fedemu.types import Rng, Seconds
from fedemu.units import Duration, File

_DURATION = TypeAdapter[float](Duration)


def trace(*, file: File, offset: Literal["random", "none"] = "random") -> Device:
    """Take the times per example of a file, a line for each training, and begin again after the last.

    Args:
        file: Text with a duration a line (5ms); empty lines and lines that start with # are left out.
        offset: Where a client begins: at a line drawn once, or at the first.

    Raises:
        ValueError: the file cannot be read, has no time, or a line that is none.
    """
    return Device(Replay(_times(file), offset == "random"), "client")


@dataclass(slots=True)
class Replay:
    """Times per example, one after the other."""

    times: tuple[Seconds, ...]
    shifted: bool
    """Begin at a line that the client's stream draws, the same one every time."""
    trainings: int = 0
    """Done so far."""

    def __call__(self, work: Work, rng: Rng) -> Seconds:
        """Return how long the next training takes."""
        first = int(rng.integers(len(self.times))) if self.shifted else 0
        per_example = self.times[(first + self.trainings) % len(self.times)]
        self.trainings += 1
        return per_example * work.examples * work.epochs


def _times(file: str) -> tuple[Seconds, ...]:
    try:
        lines = Path(file).read_text("utf-8", "replace").splitlines()
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from None
    times = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            times.append(_DURATION.validate_python(line))
        except ValidationError:
            raise ValueError(f"{file}:{number}: {line.strip()!r} is not a duration; write e.g. 5ms") from None
    if not times:
        raise ValueError(f"{file} has no duration; expected one at least")
    return tuple(times)
