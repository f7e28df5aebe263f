"""Deleting, in SQL: what goes with a gallery, a person or a face, within one transaction.

Their slots are zeroed, what was answered of them goes, and the data keys of people fall due. What
follows once that is committed is erasing.py's.
"""

from service.gallery import answers, people, slots
from service.gallery.changelog import log
from service.gallery.sqlite import Transaction


def delete_gallery(db: Transaction, number: int) -> None:
    """Deletes the gallery and all in it."""
    _data_keys_fall_due(db, "gallery", number)
    for table in ("faces", "answers", "persons"):
        slots.erase(db, f"SELECT slot FROM {table} WHERE gallery = ?", number)
    for table in ("faces", "answers", "persons", "changes"):
        db.execute(f"DELETE FROM {table} WHERE gallery = ?", (number,))
    db.execute("DELETE FROM galleries WHERE number = ?", (number,))
    db.execute("UPDATE house SET galleries_deleted = galleries_deleted + 1")


def delete_person(db: Transaction, gallery: int, number: int) -> dict[str, int]:
    """Deletes the person with their faces and what was answered of them; the faces' numbers by id.

    gallery: the number of theirs.
    """
    found = db.execute("SELECT id, number FROM faces WHERE person = ? ORDER BY number", (number,))
    faces = {str(face_id): int(face) for face_id, face in found}
    _data_keys_fall_due(db, "number", number)
    for table, column in (("faces", "person"), ("answers", "person"), ("persons", "number")):
        slots.erase(db, f"SELECT slot FROM {table} WHERE {column} = ?", number)
    db.execute("DELETE FROM faces WHERE person = ?", (number,))
    db.execute("UPDATE answers SET slot = NULL, person = NULL WHERE person = ?", (number,))
    db.execute("DELETE FROM persons WHERE number = ?", (number,))
    log(db, gallery, persons=-1, faces=-len(faces), changed=list(faces.values()))
    return faces


def delete_face(db: Transaction, gallery: int, person: int, number: int, *, now: float) -> None:
    """Deletes the face of this number and what was answered of it; the person and their gallery are
    given by theirs."""
    answers.erase_of_face(db, number)
    slots.erase(db, "SELECT slot FROM faces WHERE number = ?", number)
    db.execute("DELETE FROM faces WHERE number = ?", (number,))
    people.touch_person(db, person, now=now)
    log(db, gallery, faces=-1, changed=[number])


def _data_keys_fall_due(db: Transaction, column: str, value: int) -> None:
    theirs = f"SELECT data_key FROM persons WHERE {column} = ? AND data_key IS NOT NULL"
    db.execute(f"INSERT OR IGNORE INTO data_keys_due {theirs}", (value,))
