"""What the gallery's tables say and how they change, in SQL: one function a statement or two.

Every function works within one transaction of sqlite.py, where the schema stands, and takes and
gives the contract's records. `number` is a row's own, never used twice.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.errors import (
    AnswerErased,
    FaceUnknown,
    GalleryUnknown,
    IdempotencyKeyReused,
    PersonUnknown,
    SpaceMismatch,
)
from service.gallery import boundary, slots
from service.gallery.contract import (
    KEEP,
    FaceRecord,
    GalleryRecord,
    Idempotency,
    Keep,
    PersonRecord,
)
from service.gallery.live import Standing
from service.gallery.sqlite import Transaction

ANSWERS_A_SWEEP: Final = 200

_GALLERY: Final = "name, space, calibration, metadata, persons, faces, revision, created"
_PERSON: Final = (
    "content, (SELECT count(*) FROM faces WHERE person = persons.number), created, updated"
    " FROM persons JOIN slots USING (slot)"
)
_FACE: Final = "id, ?, details, created"  # ?: the person's id, known before


# Galleries.


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
    revision: int,
    now: float,
) -> None:
    """Makes an empty gallery; what came before `revision` is not in its change log."""
    db.execute(
        "INSERT INTO galleries"
        " (name, space, calibration, metadata, persons, faces, revision, trimmed, created)"
        " VALUES (?, ?, ?, ?, 0, 0, ?, ?, ?)",
        (name, space, calibration, metadata, revision, revision, now),
    )


def gallery(db: Transaction, number: int) -> GalleryRecord:
    """The gallery of this number."""
    row = db.execute(f"SELECT {_GALLERY} FROM galleries WHERE number = ?", (number,)).fetchone()
    return _gallery_record(row)


def galleries(db: Transaction, after: int, limit: int) -> list[tuple[int, GalleryRecord]]:
    """At most `limit` galleries with greater numbers, with their numbers."""
    page = f"SELECT number, {_GALLERY} FROM galleries WHERE number > ? ORDER BY number LIMIT ?"
    return [(number, _gallery_record(row)) for number, *row in db.execute(page, (after, limit))]


def update_gallery(
    db: Transaction, number: int, *, calibration: str | Keep | None, metadata: str | Keep
) -> None:
    """Replaces what is given."""
    for column, value in (("calibration", calibration), ("metadata", metadata)):
        if value is not KEEP:
            db.execute(f"UPDATE galleries SET {column} = ? WHERE number = ?", (value, number))


def pin_space(db: Transaction, gallery: Standing, space: str) -> None:
    """Has the gallery hold embeddings of this space alone. Raises SpaceMismatch."""
    if gallery.space is None:
        db.execute("UPDATE galleries SET space = ? WHERE number = ?", (space, gallery.number))
    elif gallery.space != space:
        raise SpaceMismatch(gallery.name, value=space, limit=gallery.space)


def erase_gallery(db: Transaction, number: int) -> None:
    """Deletes the gallery and all in it."""
    for table in ("faces", "answers", "persons"):
        slots.erase(db, f"SELECT slot FROM {table} WHERE gallery = ?", number)
    for table in ("faces", "answers", "persons", "changes"):
        db.execute(f"DELETE FROM {table} WHERE gallery = ?", (number,))
    db.execute("DELETE FROM galleries WHERE number = ?", (number,))
    db.execute("UPDATE house SET galleries_deleted = galleries_deleted + 1")


# Persons.


def person_number(db: Transaction, gallery: Standing, person_id: str) -> int:
    """The person's number. Raises PersonUnknown."""
    number = find_person(db, gallery, person_id)
    if number is None:
        raise PersonUnknown(gallery.name, boundary.shown(person_id))
    return number


def find_person(db: Transaction, gallery: Standing, person_id: str) -> int | None:
    """The person's number, None when they are not there."""
    if not boundary.is_text(person_id):
        return None
    found = "SELECT number FROM persons WHERE gallery = ? AND id_hash = ?"
    row = db.execute(found, (gallery.number, _hash(person_id))).fetchone()
    return row and int(row[0])


def insert_person(
    db: Transaction,
    gallery: Standing,
    person_id: str,
    *,
    name: str | None,
    metadata: str,
    now: float,
) -> int:
    """Makes a person; their number."""
    slot = slots.fill(db, _person_text(person_id, name, metadata))
    values = (gallery.number, _hash(person_id), slot, now, now)
    inserted = db.execute(
        "INSERT INTO persons (gallery, id_hash, slot, created, updated) VALUES (?, ?, ?, ?, ?)",
        values,
    )
    assert inserted.lastrowid is not None
    return inserted.lastrowid


def update_person(
    db: Transaction, number: int, *, name: str | Keep | None, metadata: str | Keep, now: float
) -> None:
    """Replaces what is given, and notes that the person or their faces changed."""
    if not (name is KEEP and metadata is KEEP):
        found = "SELECT slot, content FROM persons JOIN slots USING (slot) WHERE number = ?"
        slot, content = db.execute(found, (number,)).fetchone()
        person_id, old_name = person_named(content)
        new_name = old_name if name is KEEP else name
        new_metadata = _metadata_text(content) if metadata is KEEP else metadata
        slot = slots.refill(db, slot, _person_text(person_id, new_name, new_metadata))
        db.execute("UPDATE persons SET slot = ? WHERE number = ?", (slot, number))
    db.execute("UPDATE persons SET updated = ? WHERE number = ?", (now, number))


def person(db: Transaction, number: int) -> PersonRecord:
    """The person of this number."""
    row = db.execute(f"SELECT {_PERSON} WHERE number = ?", (number,)).fetchone()
    return _person_record(row)


def persons(
    db: Transaction, gallery: Standing, after: int, limit: int
) -> list[tuple[int, PersonRecord]]:
    """At most `limit` persons with greater numbers, with their numbers."""
    page = f"SELECT number, {_PERSON} WHERE gallery = ? AND number > ? ORDER BY number LIMIT ?"
    rows = db.execute(page, (gallery.number, after, limit))
    return [(number, _person_record(row)) for number, *row in rows]


def erase_person(db: Transaction, number: int) -> list[int]:
    """Deletes the person with their faces and what was answered of them; the faces' numbers."""
    found = db.execute("SELECT number FROM faces WHERE person = ?", (number,))
    faces = [int(face) for (face,) in found]
    for table, column in (("faces", "person"), ("answers", "person"), ("persons", "number")):
        slots.erase(db, f"SELECT slot FROM {table} WHERE {column} = ?", number)
    db.execute("DELETE FROM faces WHERE person = ?", (number,))
    db.execute("UPDATE answers SET slot = NULL, person = NULL WHERE person = ?", (number,))
    db.execute("DELETE FROM persons WHERE number = ?", (number,))
    return faces


# Faces.


def insert_face(
    db: Transaction,
    gallery: Standing,
    person: int,
    face_id: str,
    *,
    embedding_D: NDArray[np.float32],
    details: str,
    now: float,
) -> int:
    """Makes a face; its number."""
    slot = slots.fill(db, embedding_D.astype("<f4").tobytes())
    values = (gallery.number, person, face_id, slot, details, now)
    inserted = db.execute(
        "INSERT INTO faces (gallery, person, id, slot, details, created) VALUES (?, ?, ?, ?, ?, ?)",
        values,
    )
    assert inserted.lastrowid is not None
    return inserted.lastrowid


def face_number(
    db: Transaction, gallery: Standing, person: int, person_id: str, face_id: str
) -> int:
    """The number of the person's face. Raises FaceUnknown."""
    row = None
    if boundary.is_text(face_id):
        found = "SELECT number FROM faces WHERE id = ? AND person = ?"
        row = db.execute(found, (face_id, person)).fetchone()
    if row is None:
        raise FaceUnknown(gallery.name, person_id, boundary.shown(face_id))
    return int(row[0])


def face(db: Transaction, number: int, person_id: str) -> FaceRecord:
    """The face of this number, a face of this person."""
    found = f"SELECT {_FACE} FROM faces WHERE number = ?"
    return _face_record(db.execute(found, (person_id, number)).fetchone())


def faces(
    db: Transaction, person: int, person_id: str, after: int, limit: int
) -> list[tuple[int, FaceRecord]]:
    """At most `limit` of the person's faces with greater numbers, with their numbers."""
    page = (
        f"SELECT number, {_FACE} FROM faces WHERE person = ? AND number > ? ORDER BY number LIMIT ?"
    )
    rows = db.execute(page, (person_id, person, after, limit))
    return [(number, _face_record(row)) for number, *row in rows]


def erase_face(db: Transaction, number: int) -> None:
    """Deletes the face."""
    slots.erase(db, "SELECT slot FROM faces WHERE number = ?", number)
    db.execute("DELETE FROM faces WHERE number = ?", (number,))


# What was answered under an Idempotency-Key.


def answered(db: Transaction, gallery: Standing, idempotency: Idempotency) -> bytes | None:
    """What was answered, None if nothing yet. Raises IdempotencyKeyReused, AnswerErased."""
    found = (
        "SELECT fingerprint, size, content FROM answers LEFT JOIN slots USING (slot)"
        " WHERE gallery = ? AND key = ?"
    )
    row = db.execute(found, (gallery.number, idempotency.key)).fetchone()
    if row is None:
        return None
    fingerprint, size, content = row
    if fingerprint != idempotency.fingerprint:
        raise IdempotencyKeyReused(idempotency.key)
    if content is None:
        raise AnswerErased(idempotency.key)
    return bytes(content[:size])


def keep_answer(
    db: Transaction,
    gallery: Standing,
    idempotency: Idempotency,
    answer: bytes,
    *,
    person: int,
    now: float,
) -> None:
    """Keeps what is about to be answered."""
    key, fingerprint = idempotency.key, idempotency.fingerprint
    slot = slots.fill(db, answer)
    db.execute(
        "INSERT INTO answers (gallery, key, fingerprint, slot, size, person, created)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (gallery.number, key, fingerprint, slot, len(answer), person, now),
    )


def sweep_answers(db: Transaction, before: float) -> None:
    """Forgets some of the answers that are older, so many that the rest goes with later calls."""
    some = f"FROM answers WHERE created < ? ORDER BY created LIMIT {ANSWERS_A_SWEEP}"
    slots.erase(db, f"SELECT slot {some}", before)
    db.execute(f"DELETE FROM answers WHERE rowid IN (SELECT rowid {some})", (before,))


def _hash(person_id: str) -> bytes:
    return hashlib.blake2b(person_id.encode(), digest_size=16).digest()


def _person_text(person_id: str, name: str | None, metadata: str) -> bytes:
    return (json.dumps([person_id, name], ensure_ascii=False) + "\n" + metadata).encode()


def person_named(content: bytes) -> tuple[str, str | None]:
    """A person's id and name, out of their slot."""
    person_id, name = json.loads(content[: content.index(b"\n")])
    return person_id, name


def _metadata_text(content: bytes) -> str:
    return content[content.index(b"\n") + 1 :].rstrip(b"\0").decode()


def _gallery_record(row: Sequence[Any]) -> GalleryRecord:
    name, space, calibration, metadata, persons, faces, revision, created = row
    return GalleryRecord(
        name, space, calibration, _read(metadata), persons, faces, revision, _time(created)
    )


def _person_record(row: Sequence[Any]) -> PersonRecord:
    content, faces, created, updated = row
    metadata = _read(_metadata_text(content))
    return PersonRecord(*person_named(content), metadata, faces, _time(created), _time(updated))


def _face_record(row: Sequence[Any]) -> FaceRecord:
    face_id, person_id, details, created = row
    return FaceRecord(face_id, person_id, _read(details), _time(created))


def _read(text: str) -> Mapping[str, Any]:
    value: dict[str, Any] = json.loads(text)
    return value


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
