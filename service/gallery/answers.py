"""What was answered under an Idempotency-Key, in SQL: kept sealed as its person is, for a day.

As people.py, within one transaction of sqlite.py.
"""

from typing import Final

from service.errors import AnswerErased, IdempotencyKeyReused
from service.gallery import slots
from service.gallery.contract import Idempotency
from service.gallery.live import Standing
from service.gallery.people import safe_of
from service.gallery.safe import KeysOf, Safe, broken_told
from service.gallery.sqlite import Transaction

KEPT_S: Final = 25 * 3600.0  # 24 hours are promised
SWEPT_AT_ONCE: Final = 200


def answered(
    db: Transaction, keys: KeysOf, gallery: Standing, idempotency: Idempotency
) -> bytes | None:
    """What was answered, None if nothing yet. Raises AnswerErased, also for another request, which
    has the same way out; IdempotencyKeyReused."""
    found = (
        "SELECT fingerprint, size, answers.seal, content, answers.person FROM answers"
        " LEFT JOIN slots USING (slot) WHERE gallery = ? AND key = ?"
    )
    row = db.execute(found, (gallery.number, idempotency.key)).fetchone()
    if row is None:
        return None
    fingerprint, size, seal, content, person = row
    if content is None:
        raise AnswerErased(idempotency.key)
    if fingerprint != idempotency.fingerprint:
        raise IdempotencyKeyReused(idempotency.key)
    theirs = safe_of(db, keys, person)
    with broken_told(theirs):
        return bytes(theirs.take("answer", seal, content, idempotency.key)[:size])


def keep(
    db: Transaction,
    gallery: Standing,
    idempotency: Idempotency,
    answer: bytes,
    *,
    person: int,
    theirs: Safe,
    now: float,
) -> None:
    """Keeps what is about to be answered."""
    key, fingerprint = idempotency.key, idempotency.fingerprint
    seal, content = theirs.put("answer", answer, key)
    slot = slots.fill(db, content)
    db.execute(
        "INSERT INTO answers (gallery, key, fingerprint, slot, size, person, created, seal)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (gallery.number, key, fingerprint, slot, len(answer), person, now, seal),
    )


def erase_of_face(db: Transaction, face: int) -> None:
    """Erases the answer that names this face, before it is deleted; its key stays used.

    A face and the answer that names it are of one transaction, so of one person and one time.
    """
    of_face = (
        "FROM answers WHERE (person, created) ="
        " (SELECT faces.person, faces.created FROM faces WHERE number = ?)"
    )
    slots.erase(db, f"SELECT slot {of_face}", face)
    gone = f"UPDATE answers SET slot = NULL, person = NULL WHERE rowid IN (SELECT rowid {of_face})"
    db.execute(gone, (face,))


def sweep(db: Transaction, *, now: float) -> None:
    """Forgets some of the answers that are kept no longer; the rest goes with later calls.

    Only for a clock that is trusted: by one that leapt a day ahead, all of them would go.
    """
    some = f"FROM answers WHERE created < ? ORDER BY created LIMIT {SWEPT_AT_ONCE}"
    before = now - KEPT_S
    slots.erase(db, f"SELECT slot {some}", before)
    db.execute(f"DELETE FROM answers WHERE rowid IN (SELECT rowid {some})", (before,))
