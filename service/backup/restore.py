"""Bringing a backup back."""

import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final

from service.backup import AUDIT, CALIBRATIONS, FILE, FORMAT, KEYS, MANIFEST, NOBODYS
from service.backup.files import CHUNK_BYTES, digest_of, new_file, sync_entries
from service.errors import BackupRefused, StorageUnavailable
from service.gallery import DATA_KEYS_FILE_NAME, FILE_NAME
from service.gallery.copies import (
    NEWEST_SCHEMA,
    Contents,
    contents_of,
    copy_database,
    persons_erased_since,
)
from service.gallery.sqlite import alone_with

STAYS: Final = (AUDIT, KEYS)  # where they are there already
_TURNS: Final = (f"{FILE_NAME}-turn", f"{FILE_NAME}-next")  # by which who comes meanwhile waits
_ASIDE: Final = "before-restore-"
_EARLIER: Final = "audit-"  # files of the audit log that were put aside: they stay with it


@dataclass(frozen=True)
class Restored:
    """What was brought back. made: when the backup was; aside: where what was there before lies.

    stayed: what was left as it is. erased_since: persons of the backup whose data keys were erased
    since; nobody can read them, and they go when the gallery is opened. keys_missing: there are
    sealed persons and no data keys.
    """

    made: str
    contents: Contents
    aside: Path | None
    stayed: tuple[str, ...]
    erased_since: int
    keys_missing: bool


def restore_backup(
    backup: Path, data: Path, *, replace: bool = False, data_keys: Path | None = None
) -> Restored:
    """Brings a backup back into the data folder, which has to be empty unless `replace`.

    All of it is checked before anything that is there is touched; what is there is then moved
    aside, within the folder. data_keys: a copy of the data keys to bring back with it, where there
    are none yet. Raises BackupRefused, StorageFull, StorageUnavailable, OSError.
    """
    made, digests = _manifest(backup)
    there = _entries(data)
    if there and not replace:
        raise BackupRefused(str(data), "it is not empty; --replace puts aside what is there")
    keys = data / DATA_KEYS_FILE_NAME
    if data_keys is not None and keys.exists():
        reason = f"it has {keys.name} already, from which persons may have been erased since"
        raise BackupRefused(str(data), reason)
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as stack:
        if (data / FILE_NAME).exists():
            stack.enter_context(_nobody_serves(data))
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".restore-", dir=data)))
        staged = _staged(backup, digests, work / "staged")
        contents = contents_of(staged / FILE_NAME)
        if data_keys is not None:
            copy_database(data_keys, staged / keys.name)
        newest = next((path for path in (staged / keys.name, keys) if path.exists()), None)
        erased = 0 if newest is None else persons_erased_since(staged / FILE_NAME, newest)
        aside = _put_aside(data, there)
        stayed = tuple(name for name in STAYS if _is_there(data, name))
        _put_in_place(staged, data, stayed)
    missing = contents.sealed > 0 and newest is None
    return Restored(made, contents, aside, stayed, erased, missing)


def _manifest(backup: Path) -> tuple[str, dict[str, str]]:
    """When a backup that this Mien can bring back was made, and its files' SHA-256 by their names.

    Raises BackupRefused.
    """
    with _opened(backup) as member, member(MANIFEST) as file:
        try:
            manifest = json.load(file)
            form, schema, mien = (manifest[name] for name in ("format", "schema", "mien"))
            digests = {name: entry["sha256"] for name, entry in manifest["files"].items()}
            newer = form > FORMAT or schema > NEWEST_SCHEMA
            made = str(manifest["made"])
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise BackupRefused(str(backup), f"its {MANIFEST} is none: {error!r}") from error
    if newer:
        reason = (
            f"Mien {mien} made it (format {form}, schema {schema}), and this one knows format "
            f"{FORMAT} and schema {NEWEST_SCHEMA} at most: bring it back with that version"
        )
        raise BackupRefused(str(backup), reason)
    if odd := [name for name in digests if not FILE.fullmatch(name)]:
        raise BackupRefused(str(backup), f"its {MANIFEST} names {odd[0]!r}, which no backup has")
    if FILE_NAME not in digests:
        raise BackupRefused(str(backup), f"its {MANIFEST} names no {FILE_NAME}")
    return made, digests


def _staged(backup: Path, digests: Mapping[str, str], folder: Path) -> Path:
    """The folder, now with the backup's files, each held to its SHA-256, on disk."""
    (folder / CALIBRATIONS).mkdir(parents=True, mode=0o700)
    with _opened(backup) as member:
        for name, due in digests.items():
            with member(name) as source, new_file(folder / name) as target:
                shutil.copyfileobj(source, target, CHUNK_BYTES)
            if (digest := digest_of(folder / name)) != due:
                reason = f"{name} has the sha256 {digest}, its manifest says {due}"
                raise BackupRefused(str(backup), reason)
    sync_entries(folder / CALIBRATIONS)
    return folder


@contextmanager
def _opened(backup: Path) -> Iterator[Callable[[str], IO[bytes]]]:
    """What opens the backup's files by their names. Raises BackupRefused."""
    with ExitStack() as stack:
        try:
            tar = None if backup.is_dir() else stack.enter_context(tarfile.open(backup, "r:"))
        except (OSError, tarfile.TarError) as error:
            raise BackupRefused(str(backup), f"it cannot be read as a backup: {error}") from error

        def member(name: str) -> IO[bytes]:
            try:
                found = (backup / name).open("rb") if tar is None else tar.extractfile(name)
            except (OSError, KeyError) as error:
                raise BackupRefused(str(backup), f"it has no {name}") from error
            if found is None:
                raise BackupRefused(str(backup), f"its {name} is no file")
            return found

        try:
            yield member
        except tarfile.TarError as error:
            raise BackupRefused(str(backup), f"it is cut off, or damaged: {error}") from error


@contextmanager
def _nobody_serves(data: Path) -> Iterator[None]:
    """While the block runs, nobody has the data folder's gallery open. Raises BackupRefused."""
    with ExitStack() as stack:
        try:
            stack.enter_context(alone_with(data / FILE_NAME))
        except StorageUnavailable as error:
            reason = f"a server or a command uses it ({error.reason}): end that first"
            raise BackupRefused(str(data), reason) from error
        yield


def _is_there(data: Path, name: str) -> bool:
    """Whether the file is there; of the audit log any file will do: the next entry follows it."""
    return (data / name).exists() or (name == AUDIT and any(data.glob(f"{_EARLIER}*")))


def _entries(data: Path) -> list[Path]:
    """What would be put aside, the gallery first."""
    if not data.exists():
        return []
    stays = (*STAYS, *_TURNS, NOBODYS, DATA_KEYS_FILE_NAME)
    beside: tuple[str, ...] = (_ASIDE, _EARLIER)
    if (data / DATA_KEYS_FILE_NAME).exists():  # the log of a file that is gone fits no other
        beside = (*beside, f"{DATA_KEYS_FILE_NAME}-")
    entries = [
        path
        for path in data.iterdir()
        if path.name not in stays and not path.name.startswith(beside)
    ]
    return sorted(entries, key=lambda path: (path.name != FILE_NAME, path.name))


def _put_aside(data: Path, there: list[Path]) -> Path | None:
    """The folder that now has what was there; None where nothing was.

    The gallery's file and its log, each worth nothing without the other, are there both before one
    of them is gone from here: whoever breaks this off has them together in one place.
    """
    if not there:
        return None
    aside = data / f"{_ASIDE}{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    aside.mkdir(mode=0o700)
    together = [path for path in there if path.name in (FILE_NAME, f"{FILE_NAME}-wal")]
    for path in together:
        os.link(path, aside / path.name)
    sync_entries(aside)
    for path in there:
        if path in together:
            path.unlink()
        else:
            os.rename(path, aside / path.name)
    sync_entries(aside)
    sync_entries(data)
    return aside


def _put_in_place(staged: Path, data: Path, stayed: tuple[str, ...]) -> None:
    """Moves the files to where they are used, the gallery last. Raises BackupRefused where somebody
    began to serve meanwhile."""
    for path in staged.iterdir():
        if path.name not in (FILE_NAME, *stayed):
            os.rename(path, data / path.name)
    try:
        os.link(staged / FILE_NAME, data / FILE_NAME)  # never over another
    except FileExistsError as error:
        reason = "a server began to serve it meanwhile: end it, and restore with --replace"
        raise BackupRefused(str(data), reason) from error
    sync_entries(data)
