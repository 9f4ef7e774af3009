"""Files of the data directory, read only when their hash is vouched for."""

import hashlib
from pathlib import Path

from fedemu.datasets._base import Verified
from fedemu.errors import DataError


def read_verified(folder: Path, name: str, sha256: str, *, archive: str) -> tuple[bytes, Verified]:
    """Return a file's content and who vouched for it.

    A file with the official hash is official. One that differs is taken only if `folder/SHA256SUMS` lists the hash
    that it has.

    Args:
        folder: The data directory.
        name: The file's path in it, with `/`.
        sha256: Its official SHA-256, in hexadecimal.
        archive: Where the file comes from, for the reader of an error.

    Raises:
        DataError: The file is missing, or nobody vouches for its content.
    """
    path = folder / name
    remedy = f"set FEDEMU_DATA to a directory that has it as {name}; it comes from {archive}"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}), expected sha256 {sha256}; {remedy}") from error
    found = hashlib.sha256(content).hexdigest()
    if found == sha256:
        return content, "official"
    if _listed(folder).get(name) == found:
        return content, "SHA256SUMS"
    raise DataError(f"{path} has sha256 {found}, expected {sha256}; {remedy}")


def weakest(*verified: Verified) -> Verified:
    """Return what can be said of several files together."""
    return "official" if set(verified) == {"official"} else "SHA256SUMS"


def _listed(folder: Path) -> dict[str, str]:
    path = folder / "SHA256SUMS"
    if not path.is_file():
        return {}
    # `sha256sum` writes the hash, a space, and a space or (for binary mode) a `*`
    lines = (line.split(maxsplit=1) for line in path.read_text().splitlines())
    return {fields[1].removeprefix("*"): fields[0].lower() for fields in lines if len(fields) == 2}
