"""Copies of the gallery's file: made while it is served, looked through before they are trusted.

A copy is SQLite's own (VACUUM INTO) of one committed state, without the file being changed, brought
up to date or emptied of its log. It has no page that is not in use, so none of what was deleted.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from service.errors import StorageUnavailable
from service.gallery.schema import SCHEMA
from service.gallery.sqlite import Transaction, reading

NEWEST_SCHEMA: Final = len(SCHEMA)
_SEALED_SINCE: Final = 3  # schema
_COUNTED: Final = (
    "SELECT name, space, revision, persons, faces,"
    " persons = (SELECT count(*) FROM persons WHERE gallery = galleries.number)"
    " AND faces = (SELECT count(*) FROM faces WHERE gallery = galleries.number)"
    " FROM galleries ORDER BY number"
)


@dataclass(frozen=True)
class GalleryFacts:
    """A gallery as it stands in a copy."""

    name: str
    space: str | None
    revision: int
    persons: int
    faces: int


@dataclass(frozen=True)
class Contents:
    """What a copy holds. schema: its version; sealed: how many persons are sealed."""

    schema: int
    galleries: tuple[GalleryFacts, ...]
    sealed: int


def copy_database(source: Path, target: Path) -> None:
    """Writes the source as it is committed now to the target, which is not there yet, and syncs it.

    Others may write to the source meanwhile. Raises StorageFull, StorageUnavailable.
    """
    with reading(source) as db:
        db.execute("VACUUM INTO ?", (str(target),))
    target.chmod(0o600)
    with target.open("rb") as file:
        os.fsync(file.fileno())


def contents_of(copy: Path) -> Contents:
    """What the copy of a gallery's file holds, once all of it was found to be whole.

    Raises StorageUnavailable where SQLite finds a fault, a row refers to one that is not there, or
    the counters of a gallery are not its rows'; also for the file of a newer schema.
    """
    with reading(copy) as db:
        (schema,) = db.execute("PRAGMA user_version").fetchone()
        if not 1 <= schema <= NEWEST_SCHEMA:
            raise StorageUnavailable(
                f"{copy.name} has the schema {schema}; this Mien knows 1 to {NEWEST_SCHEMA}"
            )
        _require_sound(db, copy.name)
        rows = db.execute(_COUNTED).fetchall()
        if wrong := [name for name, *_, counted in rows if not counted]:
            raise StorageUnavailable(f"{copy.name} is damaged: the counters of {wrong[0]} are off")
        return Contents(schema, tuple(GalleryFacts(*row[:-1]) for row in rows), _sealed(db, schema))


def persons_erased_since(copy: Path, data_keys: Path) -> int:
    """How many persons of the copy have a data key that was erased: who is not to come back."""
    with reading(copy) as db:
        (schema,) = db.execute("PRAGMA user_version").fetchone()
        if schema < _SEALED_SINCE:
            return 0
        found = db.execute("SELECT data_key FROM persons WHERE data_key IS NOT NULL")
        of_persons = {key_id for (key_id,) in found}
    with reading(data_keys) as db:
        gone = db.execute("SELECT id FROM data_keys WHERE slot IS NULL")
        return len(of_persons & {key_id for (key_id,) in gone})


def _require_sound(db: Transaction, name: str) -> None:
    if (said := db.execute("PRAGMA quick_check(1)").fetchone()) != ("ok",):
        raise StorageUnavailable(f"{name} is damaged: {said[0]}")
    if (row := db.execute("PRAGMA foreign_key_check").fetchone()) is not None:
        raise StorageUnavailable(f"{name} is damaged: a row of {row[0]} lacks its {row[2]}")


def _sealed(db: Transaction, schema: int) -> int:
    if schema < _SEALED_SINCE:
        return 0
    (count,) = db.execute("SELECT count(*) FROM persons WHERE data_key IS NOT NULL").fetchone()
    return int(count)
