"""Vectors that wait for their emulated time: in memory up to a budget, beyond it in files.

On the virtual clock real work runs ahead: an update is trained long before the moment at which it arrives, and fifty
clients that upload at once hold fifty models. What is in a file takes memory only while it is read.
"""

import tempfile
import threading
import weakref

import torch

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
        held: Bytes that wait in memory now.
        peak: The most that ever did.
        filed: Bytes that were written to files so far.
    """

    def __init__(self, limit: Bytes) -> None:
        self.held: Bytes = 0
        self.peak: Bytes = 0
        self.filed: Bytes = 0
        self._limit = limit
        self._lock = threading.Lock()

    def keep(self, vector: Vector) -> Vector:
        """Return the vector, or where there is no room, an equal one that lies in a file of its own.

        It counts as long as it lives; the file, which has no name, goes with it.
        """
        size = vector.nbytes
        if size < SMALL:
            return vector
        with self._lock:
            fits = self.held + size <= self._limit
            if fits:
                self.held += size
                self.peak = max(self.peak, self.held)
            else:
                self.filed += size
        if not fits:
            return _filed(vector)
        weakref.finalize(vector, self._release, size).atexit = False
        return vector

    def _release(self, size: Bytes) -> None:
        with self._lock:
            self.held -= size


def _filed(vector: Vector) -> Vector:
    with tempfile.NamedTemporaryFile(prefix="fedemu-") as file:
        vector.contiguous().numpy().tofile(file.file)
        file.flush()
        return torch.from_file(file.name, shared=False, size=vector.numel(), dtype=vector.dtype)
