"""Where the audit log names somebody, found without reading all of it for each question.

A process reads each byte of the log once. Of a line that names a person or a receipt it keeps the
place and a hash of the name, 16 bytes a name. So a question costs what was appended since the last
one, and the lines that answer it; a process's first costs the files that are in the folder.
"""

import threading
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from service.errors import AuditUnavailable, StorageUnavailable
from service.guard.audit import Entry, entry_of, files_of, lines_of

_NAMING: Final = (b'"person_id', b'"receipt"')  # a line without has nothing to parse it for


@dataclass
class _Seen:
    """Of a file: up to which byte it was read, and where in it who is named."""

    read_bytes: int = 0
    hashes: "array[int]" = field(default_factory=lambda: array("q"))
    places: "array[int]" = field(default_factory=lambda: array("Q"))


class Mentions:
    """The mentions in the log at a path, for any number of threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen: dict[tuple[int, int], _Seen] = {}

    def of(self, name: str) -> list[Entry]:
        """The entries that name this person's id, or this receipt, the oldest first.

        A damaged line, which `mien audit verify` tells of, is passed over. Raises
        StorageUnavailable.
        """
        try:
            with self._lock:
                return [entry for path in files_of(self._path) for entry in self._in(path, name)]
        except OSError as error:
            raise StorageUnavailable(f"the audit log cannot be read: {error.strerror}") from error
        except AuditUnavailable as error:
            raise StorageUnavailable(f"the audit log cannot be read: {error.reason}") from error

    def _in(self, path: Path, name: str) -> Iterator[Entry]:
        stat = path.stat()
        file = (stat.st_dev, stat.st_ino)
        seen = self._seen.get(file)
        if seen is None or stat.st_size < seen.read_bytes:
            seen = self._seen[file] = _Seen()
        _read_on(path, seen)
        key = hash(name)
        for place in [at for one, at in zip(seen.hashes, seen.places, strict=True) if one == key]:
            entry = _entry(next(lines_of(path, place), b""))
            if entry is not None and name in _names(entry.what):
                yield entry


def _read_on(path: Path, seen: _Seen) -> None:
    """Notes who is named in the lines that were appended since."""
    for line in lines_of(path, seen.read_bytes):
        if not line.endswith(b"\n"):
            return  # torn; the next entry mends it
        if any(mark in line for mark in _NAMING) and (entry := _entry(line)) is not None:
            for name in _names(entry.what):
                seen.hashes.append(hash(name))
                seen.places.append(seen.read_bytes)
        seen.read_bytes += len(line)


def _entry(line: bytes) -> Entry | None:
    try:
        return entry_of(line)
    except ValueError:
        return None


def _names(what: Mapping[str, Any]) -> set[str]:
    """The persons and the receipt that an entry names."""
    return {
        name
        for name in (what.get("person_id"), what.get("receipt"), *what.get("person_ids", ()))
        if isinstance(name, str)
    }
