"""Vectors and facts in one file that is there whole or not at all, also when the power fails.

A safetensors file: vectors by name, and what goes through JSON in its metadata.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from fedemu.errors import RunError
from fedemu.types import Vector


class Saved(NamedTuple):
    """The content of a file."""

    facts: Mapping[str, Any]
    """What goes through JSON."""
    vectors: Mapping[str, torch.Tensor]

    def below(self, *place: str) -> dict[str, Vector]:
        """Return the vectors whose names begin with a place, by what follows in theirs."""
        prefix = "".join(f"{part}/" for part in place)
        return {name.removeprefix(prefix): vector for name, vector in self.vectors.items() if name.startswith(prefix)}


def store(path: Path, saved: Saved) -> None:
    """Write a file in place of the one that may be there; its directory is made.

    Raises:
        RunError: It cannot be written.
    """
    new = path.with_suffix(".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(dict(saved.vectors), new, {"facts": json.dumps(saved.facts)})
        _sync(new)
        new.chmod(0o666 & ~_umask())  # safetensors lets nobody else read
        new.replace(path)
        _sync(path.parent)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path} cannot be written: {error}") from error


def load(path: Path) -> Saved | None:
    """Return what a file has; None if there is none.

    Raises:
        ValueError: It is no file of this kind.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()["facts"])
            return Saved(facts, {name: file.get_tensor(name) for name in file.offset_keys()})
    except (OSError, SafetensorError, TypeError, KeyError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def named(place: str, vectors: Mapping[str, Vector]) -> dict[str, Vector]:
    """Return vectors by names that begin with a place."""
    return {f"{place}/{name}": vector.contiguous() for name, vector in vectors.items()}


def _umask() -> int:
    umask = os.umask(0o022)
    os.umask(umask)
    return umask


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
