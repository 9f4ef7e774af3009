"""Files are read only when their hash is vouched for."""

import hashlib
from pathlib import Path

import pytest

from fedemu.datasets._files import read_verified, weakest
from fedemu.errors import DataError

GOOD = hashlib.sha256(b"good").hexdigest()
OTHER = hashlib.sha256(b"other").hexdigest()


def folder_with(folder: Path, content: bytes, listed: str | None = None) -> Path:
    """Put `content` at `set/part.bin`, and a SHA256SUMS with that line."""
    (folder / "set").mkdir()
    (folder / "set" / "part.bin").write_bytes(content)
    if listed is not None:
        (folder / "SHA256SUMS").write_text(f"# two files\n{GOOD}  elsewhere.bin\n{listed}\n")
    return folder


def test_a_file_with_the_official_hash_is_official(tmp_path: Path) -> None:
    """Whatever the directory's own list says."""
    folder = folder_with(tmp_path, b"good", f"{OTHER}  set/part.bin")
    assert read_verified(folder, "set/part.bin", GOOD, archive="a.tar.gz") == (b"good", "official")


@pytest.mark.parametrize("line", [f"{OTHER}  set/part.bin", f"{OTHER} *set/part.bin", f"{OTHER.upper()}  set/part.bin"])
def test_another_file_is_taken_if_the_directory_vouches_for_it(tmp_path: Path, line: str) -> None:
    """In text and binary mode of sha256sum, in either case."""
    folder = folder_with(tmp_path, b"other", line)
    assert read_verified(folder, "set/part.bin", GOOD, archive="a.tar.gz") == (b"other", "SHA256SUMS")


@pytest.mark.parametrize("listed", [None, f"{GOOD}  set/part.bin", f"{OTHER}  part.bin"])
def test_a_corrupt_file_is_refused_with_path_hashes_and_remedy(tmp_path: Path, listed: str | None) -> None:
    """No list, a list with the hash that the file does not have, a list that speaks of another file."""
    folder = folder_with(tmp_path, b"other", listed)
    with pytest.raises(DataError) as error:
        read_verified(folder, "set/part.bin", GOOD, archive="a.tar.gz")
    assert str(error.value) == (
        f"{tmp_path}/set/part.bin has sha256 {OTHER}, expected {GOOD}; "
        "set FEDEMU_DATA to a directory that has it as set/part.bin; it comes from a.tar.gz"
    )


def test_a_missing_file_is_refused_with_path_hash_and_remedy(tmp_path: Path) -> None:
    """The operating system's own words say what is wrong."""
    with pytest.raises(DataError) as error:
        read_verified(tmp_path, "set/part.bin", GOOD, archive="a.tar.gz")
    assert str(error.value) == (
        f"{tmp_path}/set/part.bin cannot be read (No such file or directory), expected sha256 {GOOD}; "
        "set FEDEMU_DATA to a directory that has it as set/part.bin; it comes from a.tar.gz"
    )


def test_one_unofficial_file_makes_the_data_set_unofficial() -> None:
    """The weakest voucher counts."""
    assert weakest("official", "official") == "official"
    assert weakest("official", "SHA256SUMS", "official") == "SHA256SUMS"
