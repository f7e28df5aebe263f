"""The galleries' rows, in SQL: one function a statement or two.

Every function works within one transaction of sqlite.py, where the schema stands, and takes and
gives the contract's records. `number` is a row's own, never used twice.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from service.errors import GalleryUnknown, SpaceMismatch
from service.gallery import boundary
from service.gallery.contract import KEEP, GalleryRecord, Keep, Page
from service.gallery.live import Standing
from service.gallery.paging import first_rows, page_of
from service.gallery.sqlite import Transaction, damage_told

_GALLERY: Final = (
    "name, space, calibration, metadata, persons, faces, revision, created, retention_days,"
    " requires_consent, population"
)


def standing(db: Transaction, gallery: str) -> Standing:
    """How the gallery stands. Raises GalleryUnknown."""
    found = find_gallery(db, gallery)
    if found is None:
        raise GalleryUnknown(boundary.shown(gallery))
    return found


def find_gallery(db: Transaction, gallery: str) -> Standing | None:
    """How the gallery stands, None when it is not there."""
    if not boundary.is_gallery_name(gallery):
        return None
    found = (
        "SELECT number, name, space, faces, revision, (SELECT galleries_deleted FROM house)"
        " FROM galleries WHERE name = ?"
    )
    row = db.execute(found, (gallery,)).fetchone()
    return row and Standing(*row)


def insert_gallery(
    db: Transaction,
    name: str,
    *,
    space: str | None = None,
    calibration: str | None = None,
    metadata: str,
    retention_days: int | None = None,
    requires_consent: bool = False,
    population: str | None = None,
    revision: int,
    now: float,
) -> None:
    """Makes an empty gallery; what came before `revision` is not in its change log."""
    values = (name, space, calibration, metadata, retention_days, requires_consent, population)
    db.execute(
        "INSERT INTO galleries"
        " (name, space, calibration, metadata, retention_days, requires_consent, population,"
        " persons, faces, revision, trimmed, created)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, 0, 0, ?, ?, ?)",
        (*values, revision, revision, now),
    )


def gallery(db: Transaction, number: int) -> GalleryRecord:
    """The gallery of this number."""
    row = db.execute(f"SELECT {_GALLERY} FROM galleries WHERE number = ?", (number,)).fetchone()
    return _gallery_record(row)


def galleries(db: Transaction, after: int, limit: int) -> Page[GalleryRecord]:
    """At most `limit` galleries with greater numbers."""
    page = f"SELECT number, {_GALLERY} FROM galleries WHERE number > ? ORDER BY number LIMIT ?"
    rows, more = first_rows(db.execute(page, (after, limit + 1)), limit)
    return page_of("g", [(number, _gallery_record(row)) for number, *row in rows], more)


def update_gallery(db: Transaction, number: int, **columns: Keep | str | int | None) -> None:
    """Replaces what is given, by the column's name."""
    for column, value in columns.items():
        if value is not KEEP:
            db.execute(f"UPDATE galleries SET {column} = ? WHERE number = ?", (value, number))


def pin_space(db: Transaction, gallery: Standing, space: str) -> None:
    """Has the gallery hold embeddings of this space alone. Raises SpaceMismatch."""
    if gallery.space is None:
        db.execute("UPDATE galleries SET space = ? WHERE number = ?", (space, gallery.number))
    require_space(gallery, space)


def require_space(gallery: Standing, space: str) -> None:
    """Raises SpaceMismatch where the gallery holds embeddings of another space."""
    if gallery.space not in (None, space):
        raise SpaceMismatch(gallery.name, value=space, limit=str(gallery.space))


def _gallery_record(row: Sequence[Any]) -> GalleryRecord:
    *_, created, retention_days, requires_consent, population = row
    name, space, calibration, metadata, persons, faces, revision = row[:7]
    with damage_told(f"the gallery {name!r}"):
        return GalleryRecord(
            name,
            space,
            calibration,
            json.loads(metadata),
            persons,
            faces,
            revision,
            datetime.fromtimestamp(created, UTC),
            retention_days,
            bool(requires_consent),
            population,
        )
