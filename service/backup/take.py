"""Taking a backup."""

import json
import os
import shutil
import tarfile
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from service.backup import AUDIT, CALIBRATIONS, FILE, FORMAT, KEYS, KEYS_LOCK, MANIFEST, NOBODYS
from service.backup.files import CHUNK_BYTES, digest_of, folder_beside, new_file, sync_entries
from service.errors import BackupRefused, StorageFull
from service.gallery import DATA_KEYS_FILE_NAME, FILE_NAME
from service.gallery.copies import Contents, contents_of, copy_database


@dataclass(frozen=True)
class Backup:
    """A backup that was taken. made: ISO 8601, UTC; size_bytes: of all its files; left_out: what
    else lies in the data folder."""

    path: Path
    made: str
    contents: Contents
    files: tuple[str, ...]
    size_bytes: int
    left_out: tuple[str, ...]


def take_backup(data: Path, target: Path, *, data_keys: Path | None = None) -> Backup:
    """The backup of the data folder, now at `target`: a folder, or one file if that ends in .tar.

    data_keys: where the data keys are copied to, a place apart from the backup's. Raises
    BackupRefused, StorageUnavailable, OSError.
    """
    _require_possible(data, target, data_keys)
    with folder_beside(target) as work:
        try:
            backup = _filled(data, work / "folder", target)
        except StorageFull as error:
            raise BackupRefused(str(target), "its disk is full") from error
        whole = work / "folder"
        if target.suffix == ".tar":
            whole = _packed(whole, work / "tar")
        if data_keys is not None:  # after the gallery: so it has the keys of everybody there
            _copy_data_keys(data / DATA_KEYS_FILE_NAME, data_keys)
        os.rename(whole, target)
    sync_entries(target.parent)
    return backup


def _require_possible(data: Path, target: Path, data_keys: Path | None) -> None:
    if not (data / FILE_NAME).is_file():
        raise BackupRefused(str(data), f"there is no {FILE_NAME}, so there is nothing to back up")
    if data_keys is not None and not (data / DATA_KEYS_FILE_NAME).is_file():
        raise BackupRefused(str(data), f"there is no {DATA_KEYS_FILE_NAME}: nobody is sealed")
    if data_keys is not None and data_keys.absolute() == target.absolute():
        raise BackupRefused(str(data_keys), "the data keys are to lie apart from the backup")
    for path in (target, data_keys):
        if path is not None and path.exists():
            raise BackupRefused(str(path), "it is there already, and no backup is overwritten")
        if path is not None and not path.absolute().parent.is_dir():
            raise BackupRefused(str(path), "there is no folder for it")


def _filled(data: Path, folder: Path, target: Path) -> Backup:
    """The backup whose files are now in the folder, on disk and looked through."""
    (folder / CALIBRATIONS).mkdir(parents=True, mode=0o700)
    made = datetime.now(UTC).isoformat(timespec="seconds")
    copy_database(data / FILE_NAME, folder / FILE_NAME)
    contents = contents_of(folder / FILE_NAME)
    names = [FILE_NAME, *_plain_files(data)]
    for name in names[1:]:
        _copy(data / name, folder / name, whole_lines=name == AUDIT)
    files = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": digest_of(folder / name)}
        for name in names
    }
    facts = {"format": FORMAT, "mien": version("mien"), "made": made, **asdict(contents)}
    with new_file(folder / MANIFEST) as file:
        text = json.dumps({**facts, "files": files}, ensure_ascii=False, indent=1)
        file.write(text.encode() + b"\n")
    sync_entries(folder / CALIBRATIONS)
    sync_entries(folder)
    size_bytes = sum((folder / name).stat().st_size for name in (*names, MANIFEST))
    left_out = tuple(_left_out(data, names))
    return Backup(target, made, contents, tuple(names), size_bytes, left_out)


def _plain_files(data: Path) -> Iterator[str]:
    """The other files that belong into a backup and are there, by their paths in it."""
    for path in (*sorted((data / CALIBRATIONS).glob("*.json")), data / KEYS, data / AUDIT):
        name = path.relative_to(data).as_posix()
        if path.is_file() and FILE.fullmatch(name):
            yield name


def _left_out(data: Path, names: Collection[str]) -> Iterator[str]:
    """What lies in the data folder and not in the backup, but for what is made anew by itself."""
    known = {CALIBRATIONS, KEYS_LOCK, NOBODYS, *names}
    beside = (f"{FILE_NAME}-", f"{DATA_KEYS_FILE_NAME}-")
    for path in sorted(data.iterdir()):
        if path.name not in known and not path.name.startswith(beside):
            yield path.name


def _copy(source: Path, target: Path, *, whole_lines: bool) -> None:
    """Copies a file. whole_lines: without a last line that is being written."""
    with source.open("rb") as old, new_file(target) as new:
        shutil.copyfileobj(old, new, CHUNK_BYTES)
    if whole_lines:
        _cut_to_lines(target)


def _cut_to_lines(path: Path) -> None:
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - CHUNK_BYTES)
            file.seek(start)
            end = start + file.read(end - start).rfind(b"\n") + 1
            if end > start or start == 0:
                break
        file.truncate(end)
        os.fsync(file.fileno())


def _copy_data_keys(source: Path, target: Path) -> None:
    with folder_beside(target) as work:
        copy_database(source, work / "keys")
        os.rename(work / "keys", target)
    sync_entries(target.absolute().parent)


def _packed(folder: Path, target: Path) -> Path:
    """The folder as a .tar, the manifest first, on disk."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    with new_file(target) as file, tarfile.open(fileobj=file, mode="w") as tar:
        for name in sorted(names, key=lambda name: name != MANIFEST):
            tar.add(folder / name, name, recursive=False)
    return target
