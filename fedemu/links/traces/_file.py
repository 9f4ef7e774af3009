"""What the importers share: text, also out of archives, and numbers whose faults name file and line."""

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path

from fedemu.links._trace import Trace
from fedemu.types import Seconds


def text(path: str) -> str:
    """Return what is in a file, or in a member of a zip archive, `ARCHIVE.zip/MEMBER`.

    Raises:
        ValueError: it cannot be read.
    """
    archive = next((parent for parent in (Path(path), *Path(path).parents) if parent.suffix == ".zip"), None)
    try:
        if archive is None or not archive.is_file():
            return Path(path).read_text("utf-8", "replace")
        with zipfile.ZipFile(archive) as members:
            name = Path(path).relative_to(archive).as_posix()
            if name not in members.namelist():
                found = f"no {name}" if name != "." else "many files"
                raise ValueError(f"{archive} has {found}; write {archive.name}/MEMBER, as `unzip -l` lists them")
            return members.read(name).decode("utf-8", "replace")
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except zipfile.BadZipFile as error:
        raise ValueError(f"{archive} cannot be read: {error}") from None


def number(word: object, path: str, line: int, what: str) -> float:
    """Return a finite number, >= 0.

    Raises:
        ValueError: it is none; names file, line and what was expected.
    """
    try:
        value = float(word) if isinstance(word, str | int | float) and not isinstance(word, bool) else math.nan
    except (ValueError, OverflowError):
        value = math.nan
    if not 0 <= value < math.inf:
        raise ValueError(f"{path}:{line}: {short(word)} is not {what}")
    return value


def short(word: object) -> str:
    """Return what a fault shows of a word, which may be a line of bytes that are no text."""
    text = repr(word)
    return text if len(text) <= 60 else f"{text[:57]}..."


def of_steps(steps: Sequence[tuple[Seconds, float]], path: str) -> Trace:
    """Return the trace of these rates.

    Raises:
        ValueError: nothing could be sent on it; names the file.
    """
    if not steps:
        raise ValueError(f"{path}: the trace is empty; expected one step at least")
    try:
        return Trace.of_steps(steps)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
