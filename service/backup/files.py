"""Files that are written once, whole and on disk."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

CHUNK_BYTES: Final = 2**20


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file that is not there yet, readable by its owner alone; on disk when the block ends."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def folder_beside(target: Path) -> Iterator[Path]:
    """A folder on the target's own disk, gone afterwards with what is left in it."""
    prefix = f".{target.name}."
    with tempfile.TemporaryDirectory(".part", prefix, target.parent) as folder:
        yield Path(folder)


def digest_of(path: Path) -> str:
    """The file's SHA-256, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_entries(folder: Path) -> None:
    """Has the folder's entries on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
