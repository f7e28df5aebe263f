"""The file of template keys: the master keys under which everybody's data key is wrapped.

A key a line, the newest first: its id (1 to 64 of A-Z a-z 0-9 . _ -), a blank, its 32 bytes in
base64. Empty lines and lines that begin with # say nothing. The newest wraps, all of them open. The
file is read again when it changes, so that a key can be added while the service runs.

Whoever loses it loses every template; whoever has it beside MIEN_DATA can read them: keep it
elsewhere, and a copy of it elsewhere again.
"""

import base64
import binascii
import fcntl
import os
import re
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ulid import ULID

from service.errors import TemplateKeysRefused

KEY_BYTES: Final = 32
LARGEST_BYTES: Final = 65_536
_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HEAD: Final = (
    "# Mien's template keys, the newest first: id and 32 bytes in base64. Keep it secret.\n"
)


class TemplateKeyFile:
    """The template keys of a file, as they are when they are asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._keys: Mapping[str, bytes] = {}

    def __call__(self) -> Mapping[str, bytes]:
        """The keys by their ids, the newest first, at least one. Raises TemplateKeysRefused."""
        try:
            status = self._path.stat()
        except OSError as error:
            raise TemplateKeysRefused(f"{self._path}: {error.strerror}") from error
        seen = (status.st_mtime_ns, status.st_size, status.st_ino)
        with self._lock:
            if seen != self._seen:
                self._keys, self._seen = read_template_keys(self._path), seen
            return self._keys


def read_template_keys(path: Path) -> dict[str, bytes]:
    """The keys by their ids, in the file's order, at least one. Raises TemplateKeysRefused."""
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise TemplateKeysRefused(f"{path}: {error.strerror}") from error
    if len(text) > LARGEST_BYTES:
        raise TemplateKeysRefused(f"{path} has more than {LARGEST_BYTES} bytes: no file of keys")
    keys: dict[str, bytes] = {}
    for number, line in enumerate(text.decode("utf-8", "replace").splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            key_id, key = _read_line(f"{path}, line {number}", line)
            if key_id in keys or key in keys.values():
                raise TemplateKeysRefused(f"{path}, line {number}: this key is there already")
            keys[key_id] = key
    if not keys:
        raise TemplateKeysRefused(f"{path} has no key; make one with `mien template-keys new`")
    return keys


def add_template_key(path: Path) -> str:
    """The id of a new key, which is the file's newest now; the file is made if it is not there.

    It is on disk, whole or as it was before, the owner's alone; who adds another at the same time
    waits, since a key that is lost may have wrapped somebody's already. Raises TemplateKeysRefused
    for a file that is there and is none of keys, OSError.
    """
    key_id = str(ULID())
    line = f"{key_id} {base64.b64encode(os.urandom(KEY_BYTES)).decode()}\n"
    with _folder(path.parent) as folder:
        fcntl.flock(folder, fcntl.LOCK_EX)
        before = ""
        if path.exists():
            read_template_keys(path)
            before = path.read_text(encoding="utf-8").removeprefix(_HEAD)
        _replace(path, _HEAD + line + before)
        os.fsync(folder)
    return key_id


def _read_line(place: str, line: str) -> tuple[str, bytes]:
    parts = line.split()
    if len(parts) != 2 or not _ID.fullmatch(parts[0]):
        raise TemplateKeysRefused(f"{place} is not an id, a blank and a key")
    try:
        key = base64.b64decode(parts[1], validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise TemplateKeysRefused(f"{place}: the key is not {KEY_BYTES} bytes in base64")
    return parts[0], key


def _replace(path: Path, text: str) -> None:
    """Puts the text into the place of the file: synced, by a name that is its own until then."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


@contextmanager
def _folder(path: Path) -> Iterator[int]:
    """The folder, open."""
    folder = os.open(path, os.O_RDONLY)
    try:
        yield folder
    finally:
        os.close(folder)
