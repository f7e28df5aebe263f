"""How long people are kept, and how they are sealed, in SQL: one function a statement or two.

As people.py, within one transaction of sqlite.py.
"""

from collections.abc import Sequence
from typing import Final

from service.gallery.galleries import standing
from service.gallery.live import Standing
from service.gallery.safe import Safe
from service.gallery.sqlite import Transaction

DAY_S: Final = 86_400.0
_OF_EXPIRED: Final = (
    "FROM galleries JOIN persons ON persons.gallery = galleries.number"
    f" AND persons.updated < ? - retention_days * {DAY_S} WHERE retention_days IS NOT NULL"
)


# Data keys.


def stands(db: Transaction, data_key: bytes) -> bool:
    """Whether there is a person with this data key."""
    found = db.execute("SELECT 1 FROM persons WHERE data_key = ?", (data_key,))
    return found.fetchone() is not None


def data_keys(db: Transaction) -> dict[bytes, tuple[int, int]]:
    """The data keys of all persons by id: the numbers of gallery and person."""
    found = "SELECT data_key, gallery, number FROM persons WHERE data_key IS NOT NULL"
    return {data_key: (gallery, number) for data_key, gallery, number in db.execute(found)}


def data_keys_due(db: Transaction) -> list[bytes]:
    """The ids of the data keys whose persons are deleted, and which are to be erased."""
    return [key_id for (key_id,) in db.execute("SELECT id FROM data_keys_due")]


def data_keys_done(db: Transaction, ids: Sequence[bytes]) -> None:
    """Notes that these are erased."""
    db.executemany("DELETE FROM data_keys_due WHERE id = ?", [(key_id,) for key_id in ids])


def unsealed(db: Transaction, limit: int) -> list[int]:
    """The numbers of at most `limit` persons who are not sealed."""
    some = "SELECT number FROM persons WHERE data_key IS NULL LIMIT ?"
    return [number for (number,) in db.execute(some, (limit,))]


def seal_person(db: Transaction, number: int, data_key: tuple[bytes, bytes]) -> None:
    """Seals all that the person has, where it lies: a slot keeps its size and place."""
    found = (
        "SELECT id_hash, name, slot FROM persons JOIN galleries"
        " ON galleries.number = persons.gallery WHERE persons.number = ?"
    )
    id_hash, gallery, slot = db.execute(found, (number,)).fetchone()
    theirs = Safe(data_key[1], id_hash, gallery)
    seal = _seal_slot(db, theirs, slot, "person", "")
    values = (data_key[0], seal, number)
    db.execute("UPDATE persons SET data_key = ?, seal = ? WHERE number = ?", values)
    for table, kind, part in (("faces", "face", "id"), ("answers", "answer", "key")):
        found = f"SELECT rowid, slot, {part} FROM {table} WHERE person = ? AND slot IS NOT NULL"
        for row, slot, name in db.execute(found, (number,)).fetchall():
            seal = _seal_slot(db, theirs, slot, kind, name)
            db.execute(f"UPDATE {table} SET seal = ? WHERE rowid = ?", (seal, row))


# Retention.


def count_expired(db: Transaction, now: float) -> int:
    """How many persons their galleries keep no longer."""
    return int(db.execute(f"SELECT count(*) {_OF_EXPIRED}", (now,)).fetchone()[0])


def find_expired(db: Transaction, now: float) -> tuple[int, Standing] | None:
    """The number of somebody whom their gallery keeps no longer, and how it stands."""
    found = f"SELECT persons.number, galleries.name {_OF_EXPIRED} LIMIT 1"
    row = db.execute(found, (now,)).fetchone()
    return row and (int(row[0]), standing(db, row[1]))


def note_clock(db: Transaction, now: float, least_pause_s: float) -> float | None:
    """Notes what the clock says; how long it is not trusted yet, 0 when it is.

    None when it was noted less than least_pause_s ago. The clock is trusted when for a day each
    note was within a day of the one before: one that was set wrong shows as a leap.
    """
    row = db.execute("SELECT clock_seen, clock_trusted_from FROM house").fetchone()
    seen, trusted_from = row
    if seen is not None and 0 <= now - seen < least_pause_s:
        return None
    if seen is None or abs(now - seen) > DAY_S:
        trusted_from = now + DAY_S
    db.execute("UPDATE house SET clock_seen = ?, clock_trusted_from = ?", (now, trusted_from))
    return max(0.0, float(trusted_from) - now)


def clock_is_trusted(db: Transaction, now: float) -> bool:
    """True if what is old by this clock is old: it has not leapt, as note_clock has it.

    Where the clock was never noted, nobody watches over it, and it is taken as it is.
    """
    seen, trusted_from = db.execute("SELECT clock_seen, clock_trusted_from FROM house").fetchone()
    return seen is None or (abs(now - seen) <= DAY_S and now >= trusted_from)


def _seal_slot(db: Transaction, theirs: Safe, slot: int, kind: str, part: str) -> bytes | None:
    """Seals a slot's content in its place; the seal."""
    (clear,) = db.execute("SELECT content FROM slots WHERE slot = ?", (slot,)).fetchone()
    seal, content = theirs.put(kind, clear, part)
    db.execute("UPDATE slots SET content = ? WHERE slot = ?", (content, slot))
    return seal
