"""Vectors and facts in one file that is there whole or not at all, also when the power fails.

A safetensors file: vectors by name, and what goes through JSON in its metadata.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from fedemu.errors import RunError
from fedemu.types import Vector

T = TypeVar("T")


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
    seen, apart = set[int](), dict[str, Vector]()
    for name, vector in saved.vectors.items():  # the format takes no vector twice
        apart[name] = vector.clone() if vector.data_ptr() in seen else vector.contiguous()
        seen.add(vector.data_ptr())
    facts = json.dumps(saved.facts)
    with _replacing(path) as new:
        try:
            save_file(apart, new, {"facts": facts})
        except SafetensorError as error:
            raise RunError(f"{path} cannot be written: {error}") from error


def store_text(path: Path, text: str) -> None:
    """Write a file of text in place of the one that may be there.

    Raises:
        RunError: It cannot be written.
    """
    with _replacing(path) as new:
        new.write_text(text, encoding="utf-8")


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Give a file to write, which then takes the place of another one."""
    # in a directory of its own: whoever is killed leaves files of whatever names there, and the next one clears it
    place = path.with_name(f".{path.name}.new")
    try:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        new = place / path.name
        yield new
        new.chmod(place.stat().st_mode & 0o666)  # safetensors lets nobody else read
        _sync(new)
        new.replace(path)
        place.rmdir()
        _sync(path.parent)
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror}") from error


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


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Have a directory for oneself, which is made if it is not there; the lock ends with the process at the latest.

    Raises:
        RunError: Another process has it, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise RunError(f"{folder} cannot be written: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(f"{folder} is in use by another run; wait for its end, or name another directory") from error
        yield
    finally:
        os.close(descriptor)


def named(place: str, vectors: Mapping[str, T]) -> dict[str, T]:
    """Return vectors by names that begin with a place."""
    return {f"{place}/{name}": vector for name, vector in vectors.items()}


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
