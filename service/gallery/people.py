"""People and their faces, in SQL: their rows, and what of them lies in slots.

Every function works within one transaction of sqlite.py, where the schema stands, and takes and
gives the contract's records. `number` is a row's own, never used twice. What tells of a person goes
through their `Safe`; `keys` gives data keys by their ids, see datakeys.DataKeys.of.
"""

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.errors import FaceUnknown, PersonUnknown, StorageUnavailable
from service.gallery import boundary, slots
from service.gallery.contract import (
    KEEP,
    Consent,
    FaceRecord,
    Keep,
    NearestFace,
    Page,
    PersonRecord,
)
from service.gallery.live import Standing
from service.gallery.paging import first_rows, page_of
from service.gallery.safe import KeysOf, Safe, broken_told, safe
from service.gallery.sealed import SealBroken
from service.gallery.sqlite import RowDamaged, Transaction, damage_told

# What a Safe is made of, and then what is in it.
_SAFE: Final = "persons.data_key, persons.id_hash, galleries.name"
_PERSON: Final = (
    f"{_SAFE}, persons.seal, content,"
    " (SELECT count(*) FROM faces WHERE person = persons.number),"
    " persons.created, persons.updated, retention_days"
    " FROM persons JOIN slots USING (slot) JOIN galleries ON galleries.number = persons.gallery"
)
_FACE: Final = "id, ?, details, created"  # ?: the person's id, known before


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
    data_key: tuple[bytes, bytes] | None,
    name: str | None,
    metadata: str,
    consent: Consent | None,
    now: float,
) -> int:
    """Makes a person; their number. data_key: its id and the key, None where nothing is sealed."""
    key_id, key = data_key or (None, None)
    theirs = Safe(key, _hash(person_id), gallery.name)
    seal, content = theirs.put("person", _person_text(person_id, name, consent, metadata))
    slot = slots.fill(db, content)
    inserted = db.execute(
        "INSERT INTO persons (gallery, id_hash, slot, created, updated, data_key, seal)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (gallery.number, theirs.person, slot, now, now, key_id, seal),
    )
    assert inserted.lastrowid is not None
    return inserted.lastrowid


def update_person(
    db: Transaction,
    keys: KeysOf,
    number: int,
    *,
    name: str | Keep | None,
    metadata: str | Keep,
    consent: Consent | Keep | None,
    now: float,
) -> None:
    """Replaces what is given, and notes that the person changed."""
    if not (name is KEEP and metadata is KEEP and consent is KEEP):
        found = (
            f"SELECT slot, {_SAFE}, persons.seal, content FROM persons JOIN slots USING (slot)"
            " JOIN galleries ON galleries.number = persons.gallery WHERE persons.number = ?"
        )
        slot, data_key, *of, seal, content = _row(db, found, number)
        theirs = safe(keys([data_key]), data_key, *of)
        person_id, old_name, old_consent, old_metadata = _read_person(theirs, seal, content)
        text = _person_text(
            person_id,
            old_name if name is KEEP else name,
            old_consent if consent is KEEP else consent,
            old_metadata if metadata is KEEP else metadata,
        )
        seal, content = theirs.put("person", text)
        slot = slots.refill(db, slot, content)
        moved = "UPDATE persons SET slot = ?, seal = ? WHERE number = ?"
        db.execute(moved, (slot, seal, number))
    touch_person(db, number, now=now)


def touch_person(db: Transaction, number: int, *, now: float) -> None:
    """Notes that the person or their faces changed."""
    db.execute("UPDATE persons SET updated = ? WHERE number = ?", (now, number))


def person(db: Transaction, keys: KeysOf, number: int) -> PersonRecord:
    """The person of this number."""
    row = _row(db, f"SELECT {_PERSON} WHERE persons.number = ?", number)
    return _person_record(keys([row[0]]), row)


def persons(
    db: Transaction, keys: KeysOf, gallery: Standing, after: int, limit: int
) -> Page[PersonRecord]:
    """At most `limit` persons with greater numbers."""
    page = (
        f"SELECT persons.number, {_PERSON} WHERE persons.gallery = ? AND persons.number > ?"
        " ORDER BY persons.number LIMIT ?"
    )
    rows, more = first_rows(db.execute(page, (gallery.number, after, limit + 1)), limit)
    theirs = keys(row[1] for row in rows)
    return page_of("p", [(number, _person_record(theirs, row)) for number, *row in rows], more)


def id_if_it_opens(db: Transaction, keys: KeysOf, number: int) -> str | None:
    """The person's id, None where their row does not open; raises what `keys` does."""
    try:
        row = _row(db, f"SELECT {_PERSON} WHERE persons.number = ?", number)
    except RowDamaged:
        return None
    theirs = keys([row[0]])
    try:
        return _person_record(theirs, row).id
    except (StorageUnavailable, RowDamaged):
        return None


def safe_of(db: Transaction, keys: KeysOf, number: int) -> Safe:
    """The safe of the person of this number."""
    found = (
        f"SELECT {_SAFE} FROM persons JOIN galleries ON galleries.number = persons.gallery"
        " WHERE persons.number = ?"
    )
    data_key, *of = _row(db, found, number)
    return safe(keys([data_key]), data_key, *of)


# Faces.


def insert_face(
    db: Transaction,
    gallery: Standing,
    person: int,
    face_id: str,
    *,
    theirs: Safe,
    embedding_D: NDArray[np.float32],
    details: str,
    now: float,
) -> int:
    """Makes a face; its number. theirs: the person's safe."""
    seal, content = theirs.put("face", embedding_D.astype("<f4").tobytes(), face_id)
    slot = slots.fill(db, content)
    values = (gallery.number, person, face_id, slot, details, now, seal)
    inserted = db.execute(
        "INSERT INTO faces (gallery, person, id, slot, details, created, seal)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
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
    return _face_record(_row(db, f"SELECT {_FACE} FROM faces WHERE number = ?", person_id, number))


def faces(
    db: Transaction, person: int, person_id: str, after: int, limit: int
) -> list[tuple[int, FaceRecord]]:
    """At most `limit` of the person's faces with greater numbers, with their numbers."""
    page = (
        f"SELECT number, {_FACE} FROM faces WHERE person = ? AND number > ? ORDER BY number LIMIT ?"
    )
    rows = db.execute(page, (person_id, person, after, limit))
    return [(number, _face_record(row)) for number, *row in rows]


def embeddings(db: Transaction, theirs: Safe, person: int) -> dict[str, NDArray[np.float32]]:
    """The embeddings of all faces of the person by the faces' ids, oldest first.

    Raises StorageUnavailable.
    """
    found = (
        "SELECT id, seal, content FROM faces JOIN slots USING (slot) WHERE person = ?"
        " ORDER BY number"
    )
    with broken_told(theirs):
        return {
            face_id: embedding(theirs.take("face", seal, content, face_id))
            for face_id, seal, content in db.execute(found, (person,))
        }


def nearest_faces(
    db: Transaction, theirs: Safe, person: int, embeddings_ND: NDArray[np.float32]
) -> list[NearestFace | None]:
    """For each embedding the most similar face of the person, the oldest of equals.

    A face that does not open is passed over, as in every index.
    """
    found = (
        "SELECT id, seal, content FROM faces JOIN slots USING (slot) WHERE person = ?"
        " ORDER BY number"
    )
    ids, rows = [], []
    for face_id, seal, content in db.execute(found, (person,)):
        with contextlib.suppress(SealBroken, RowDamaged):
            rows.append(embedding(theirs.take("face", seal, content, face_id)))
            ids.append(face_id)
    if not rows:
        return [None] * len(embeddings_ND)
    similarity_NF = embeddings_ND.astype(np.float64) @ np.array(rows, np.float64).T
    return [
        NearestFace(ids[best], min(1.0, float(similarity_F[best])))
        for similarity_F, best in zip(similarity_NF, similarity_NF.argmax(axis=1), strict=True)
    ]


def embedding(content: bytes) -> NDArray[np.float32]:
    """A face's embedding, (512,), out of its slot. Raises RowDamaged for what none can be."""
    with damage_told("an embedding"):
        embedding_D = np.frombuffer(content, "<f4").astype(np.float32, copy=False)
        boundary.queries(embedding_D[None])
        return embedding_D


# How they lie in their rows and slots.


def _hash(person_id: str) -> bytes:
    return hashlib.blake2b(person_id.encode(), digest_size=16).digest()


def _person_text(person_id: str, name: str | None, consent: Consent | None, metadata: str) -> bytes:
    told = consent and [consent.basis, consent.time.isoformat(), consent.reference]
    return (json.dumps([person_id, name, told], ensure_ascii=False) + "\n" + metadata).encode()


def person_named(theirs: Safe, seal: bytes | None, content: bytes) -> tuple[str, str | None]:
    """A person's id and name, out of their slot. Raises StorageUnavailable."""
    person_id, name, _, _ = _read_person(theirs, seal, content)
    return person_id, name


def _read_person(
    theirs: Safe, seal: bytes | None, content: bytes
) -> tuple[str, str | None, Consent | None, str]:
    """A person's id, name, consent and the text of their metadata, out of their slot."""
    with broken_told(theirs):
        text = theirs.take("person", seal, content)
    with damage_told(f"a person of gallery {theirs.gallery!r} (id_hash {theirs.person.hex()})"):
        first, _, metadata = text.rstrip(b"\0").partition(b"\n")
        person_id, name, *more = json.loads(first)  # before consents there were two
        if _hash(str(person_id)) != theirs.person:
            raise ValueError("the id of somebody else")
        told = more[0] if more else None
        consent = told and Consent(told[0], datetime.fromisoformat(told[1]), told[2])
        return person_id, name, consent or None, metadata.decode()


def _person_record(keys: Mapping[bytes | None, bytes | None], row: Sequence[Any]) -> PersonRecord:
    data_key, id_hash, gallery, seal, content, faces, created, updated, retention_days = row
    theirs = safe(keys, data_key, id_hash, gallery)
    person_id, name, consent, metadata = _read_person(theirs, seal, content)
    with damage_told(f"a person of gallery {gallery!r} (id_hash {id_hash.hex()})"):
        return PersonRecord(
            person_id,
            name,
            json.loads(metadata, parse_constant=_refuse_constant),
            faces,
            _time(created),
            _time(updated),
            consent,
            None if retention_days is None else _time(updated) + timedelta(days=retention_days),
        )


def _face_record(row: Sequence[Any]) -> FaceRecord:
    face_id, person_id, details, created = row
    with damage_told(f"the face {face_id}"):
        details = json.loads(details, parse_constant=_refuse_constant)
        return FaceRecord(face_id, person_id, details, _time(created))


def _row(db: Transaction, statement: str, *values: Any) -> Sequence[Any]:
    """The one row. Raises RowDamaged where there is none: another row names what it would be."""
    row: Sequence[Any] | None = db.execute(statement, values).fetchone()
    if row is None:
        raise RowDamaged("a row is missing that another one names")
    return row


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
