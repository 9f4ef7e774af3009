"""The event log as a file: one JSON object a line, and the SHA-256 of it all."""

import hashlib
import os
from pathlib import Path
from typing import BinaryIO, Self

from fedemu.events import Event, Measurement, RoundClosed, RoundFailed, RunFinished, RunResumed, UpdateReceived, as_line
from fedemu.types import Bytes

EVENTS = "events.jsonl"
"""In a run directory."""


class JsonLines:
    """Writes every event but measurements to `events.jsonl`. Use as a context manager.

    Args:
        path: The file; None writes nothing and only computes the digest.
        kept: Bytes of an older file that stay, at its beginning.
    """

    def __init__(self, path: Path | None, *, kept: Bytes = 0) -> None:
        self._hash = hashlib.sha256()
        self.size = kept
        """Bytes so far."""
        self._file: BinaryIO | None = None
        if path is not None:
            self._file = path.open("r+b" if kept else "wb")
            self._hash.update(self._file.read(kept) if kept else b"")
            self._file.truncate(kept)

    def __call__(self, event: Event) -> None:
        if isinstance(event, Measurement):
            return
        line = f"{as_line(event)}\n".encode()
        self._hash.update(line)
        self.size += len(line)
        if self._file is not None:
            self._file.write(line)
            # who follows the file sees whole rounds, and whoever is told that its update was taken finds it there
            if isinstance(event, UpdateReceived | RoundClosed | RoundFailed | RunResumed | RunFinished):
                self._file.flush()

    @property
    def digest(self) -> str:
        """SHA-256 of the lines so far, in hexadecimal."""
        return self._hash.hexdigest()

    def flush(self) -> None:
        """See that the file has all of it."""
        if self._file is not None:
            self._file.flush()

    def sync(self) -> None:
        """See that what the file has is on the disk. Another thread may ask for it."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
