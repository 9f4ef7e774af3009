"""Named random streams: every draw depends on the seed and on what it is for, never on who drew before.

`stream(seed, "client", client, round, "train")` gives the same numbers in every process and on every run, so that a
retry, a new client or a new feature moves no other draw, and runs that differ in one knob are coupled.
"""

import hashlib

import numpy as np

from fedemu.types import Rng


def stream(seed: int, *name: str | int) -> Rng:
    """Return the random stream of that name.

    The name is hashed with SHA-256 into the seed of a PCG64, so that streams are independent of each other and of
    Python's hash seed.
    """
    digest = hashlib.sha256("/".join(map(repr, (seed, *name))).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))
