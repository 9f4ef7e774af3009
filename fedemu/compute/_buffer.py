"""Vectors that wait for their emulated time: in memory up to a budget, beyond it in files.

On the virtual clock real work runs ahead: an update is trained long before the moment at which it arrives, and fifty
clients that upload at once hold fifty models. What is in a file takes memory only while it is read.
"""

import tempfile
import threading
import weakref
from collections import deque

import torch

from fedemu.errors import RunError
from fedemu.types import Bytes, Vector

BUFFER: Bytes = 10**9
"""What may wait in memory, unless a scenario says otherwise."""

SMALL = 2**16
"""Bytes below which a vector stays where it is and is not counted."""


class Buffer:
    """Holds vectors; may be used from any thread.

    Args:
        limit: Bytes of vectors that may wait in memory.

    Attributes:
        peak: The most bytes that ever waited in memory.
        filed: Bytes that were written to files so far.
    """

    def __init__(self, limit: Bytes) -> None:
        self.peak: Bytes = 0
        self.filed: Bytes = 0
        self._limit = limit
        self._held: Bytes = 0
        self._gone = deque[Bytes]()
        """Of vectors that have died since; they may do so at any moment, also while the lock is held."""
        self._lock = threading.Lock()

    @property
    def held(self) -> Bytes:
        """Bytes that wait in memory now."""
        with self._lock:
            return self._settled()

    def keep(self, vector: Vector) -> Vector:
        """Return the vector, or where there is no room, an equal one that lies in a file of its own.

        It counts as long as it lives; the file, which has no name, goes with it.

        Raises:
            RunError: The file cannot be written.
        """
        size = vector.nbytes
        if size < SMALL:
            return vector
        with self._lock:
            fits = self._settled() + size <= self._limit
            if fits:
                self._held += size
                self.peak = max(self.peak, self._held)
            else:
                self.filed += size
        if not fits:
            return _filed(vector)
        weakref.finalize(vector, self._gone.append, size).atexit = False
        return vector

    def _settled(self) -> Bytes:
        while self._gone:
            self._held -= self._gone.popleft()
        return self._held


def _filed(vector: Vector) -> Vector:
    try:
        return _mapped(vector)
    except OSError as error:
        raise RunError(
            f"{vector.nbytes} bytes cannot be written to {tempfile.gettempdir()}: {error.strerror or error}; "
            "free some, set TMPDIR, or raise compute.buffer"
        ) from error


def _mapped(vector: Vector) -> Vector:
    with tempfile.NamedTemporaryFile(prefix="fedemu-") as file:
        vector.contiguous().numpy().tofile(file.file)
        file.flush()
        return torch.from_file(file.name, shared=False, size=vector.numel(), dtype=vector.dtype)
