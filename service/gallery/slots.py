"""Slots: where all that tells of a person lies in the file, so that it can be erased from there.

SQLite moves rows between pages as a table grows and shrinks, and may leave a copy in the unused
part of a page, out of secure_delete's reach. A slot is a row that is appended once and then only
overwritten by bytes of its own length, so it never moves. It is zeroed in place when it is freed,
and given to the next content of its size.
"""

from typing import Final

from service.gallery.sqlite import Transaction

SMALLEST_BYTES: Final = 256


def fill(db: Transaction, content: bytes) -> int:
    """A slot with the content, and zeros behind it up to the slot's size, a power of two."""
    whole = padded(content)
    free = db.execute("SELECT slot FROM free_slots WHERE size = ? LIMIT 1", (len(whole),))
    slot = free.fetchone()
    if slot is None:
        appended = db.execute("INSERT INTO slots (content) VALUES (?)", (whole,)).lastrowid
        assert appended is not None
        return appended
    db.execute("DELETE FROM free_slots WHERE size = ? AND slot = ?", (len(whole), *slot))
    db.execute("UPDATE slots SET content = ? WHERE slot = ?", (whole, *slot))
    return int(slot[0])


def refill(db: Transaction, slot: int, content: bytes) -> int:
    """A slot with the content in place of this one's: this one, where the size is the same."""
    whole = padded(content)
    found = db.execute("SELECT length(content) FROM slots WHERE slot = ?", (slot,))
    if found.fetchone() == (len(whole),):
        db.execute("UPDATE slots SET content = ? WHERE slot = ?", (whole, slot))
        return slot
    erase(db, "SELECT ?", slot)
    return fill(db, content)


def erase(db: Transaction, which: str, value: float | bytes) -> None:
    """Zeroes and frees the slots that the query `which` gives, a query of one `value`."""
    zeroed = "UPDATE slots SET content = zeroblob(length(content)) WHERE slot IN"
    db.execute(f"{zeroed} ({which})", (value,))
    freed = "INSERT INTO free_slots (size, slot) SELECT length(content), slot FROM slots"
    db.execute(f"{freed} WHERE slot IN ({which})", (value,))


def padded(content: bytes) -> bytes:
    """The content with zeros behind it, up to the size of its slot."""
    size = SMALLEST_BYTES
    while size < len(content):
        size *= 2
    return content.ljust(size, b"\0")
