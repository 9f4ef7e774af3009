"""The event log as a file: one JSON object a line, and the SHA-256 of it all."""

import hashlib
from pathlib import Path
from typing import BinaryIO, Self

from fedemu.events import Event, Measurement, RoundClosed, RoundFailed, RunFinished, as_line


class JsonLines:
    """Writes every event but measurements to `events.jsonl`. Use as a context manager.

    Args:
        path: The file, which is made anew; None writes nothing and only computes the digest.
    """

    def __init__(self, path: Path | None) -> None:
        self._file: BinaryIO | None = None if path is None else path.open("wb")
        self._hash = hashlib.sha256()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Measurement):
            return
        line = f"{as_line(event)}\n".encode()
        self._hash.update(line)
        if self._file is not None:
            self._file.write(line)
            if isinstance(event, RoundClosed | RoundFailed | RunFinished):  # who follows the file sees whole rounds
                self._file.flush()

    @property
    def digest(self) -> str:
        """SHA-256 of the lines so far, in hexadecimal."""
        return self._hash.hexdigest()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
