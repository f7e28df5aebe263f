"""The data keys, one a person, each wrapped by a master key: a file apart from the gallery's.

Whoever has the gallery's file, or any copy of it ever made, reads nothing of a person whose data
key is erased here. Of an erased key its number remains, so that a gallery that is brought back from
an old copy is known to hold somebody who was erased. Wrapped keys lie in slots, see slots.py.

The two files are no one transaction. A key is on disk before the person whom it is for: one whose
person never came is `unsettled`, and goes with the next key or start. It is erased after its person
is deleted: the gallery's own transaction notes that it is due. All of it happens in the gallery's
turn to write, so that nobody takes another's half-done work for an orphan.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from service.errors import StorageUnavailable, TemplateKeysRefused
from service.gallery import slots
from service.gallery.sealed import KEY_BYTES, MasterKeys, SealBroken, unwrapped, wrapped
from service.gallery.sqlite import SqliteFile, Transaction

KEY_ID_BYTES: Final = 16
IDS_A_READ: Final = 500  # placeholders of a statement; the limit of older SQLites is 999
REWRAPPED_AT_ONCE: Final = 500
SCHEMA: Final = (
    """
    CREATE TABLE slots (
        slot INTEGER PRIMARY KEY,
        content BLOB NOT NULL          -- a wrapped key; all zeros while the slot is free
    );
    CREATE TABLE free_slots (
        size INTEGER NOT NULL,
        slot INTEGER NOT NULL,
        PRIMARY KEY (size, slot)
    ) WITHOUT ROWID;
    CREATE TABLE data_keys (
        id BLOB PRIMARY KEY,           -- 16 random bytes; persons.data_key of the gallery
        slot INTEGER REFERENCES slots, -- NULL once it is erased
        master TEXT NOT NULL,          -- the id of the master key that wraps it
        settled INTEGER NOT NULL,      -- 0 until its person is known to be there
        made REAL NOT NULL,
        erased REAL
    ) WITHOUT ROWID;
    CREATE INDEX data_keys_of_master ON data_keys (master) WHERE slot IS NOT NULL;
    CREATE INDEX data_keys_unsettled ON data_keys (settled) WHERE settled = 0;
    """,
)

Keys = Mapping[bytes | None, bytes | None]  # by id; None of None: what is not sealed has no key


class DataKeys:
    """The data keys in the SQLite file at `path`, made if it is not there.

    masters: gives the master keys, the newest first. now: the clock, seconds since 1970. Raises
    TemplateKeysRefused when a master key is missing or another than the one that wrapped.
    """

    def __init__(
        self,
        path: Path,
        *,
        masters: MasterKeys,
        patience_s: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._masters = masters
        self._now = now
        self._name = path.name
        self._file = SqliteFile(path, patience_s=patience_s, schema=SCHEMA)
        try:
            self._require_masters()
        except BaseException:
            self._file.close()
            raise

    def make(self, count: int, *, stands: Callable[[bytes], bool]) -> list[tuple[bytes, bytes]]:
        """New keys with their ids, on disk. stands: whether a person with such a key is there."""
        new = [(os.urandom(KEY_ID_BYTES), os.urandom(KEY_BYTES)) for _ in range(count)]
        with _told_while_serving(), self._file.write() as db:
            # asked in our turn: a rotation that ends before it made all keys it was to wrap
            master_id, master = next(iter(self._masters().items()))
            _settle(db, stands, self._now())
            for key_id, key in new:
                slot = slots.fill(db, wrapped(master, key, key_id))
                db.execute(
                    "INSERT INTO data_keys (id, slot, master, settled, made)"
                    " VALUES (?, ?, ?, 0, ?)",
                    (key_id, slot, master_id, self._now()),
                )
        return new

    def settle(self, *, stands: Callable[[bytes], bool]) -> None:
        """Erases the keys whose person never came: what a crash may have left."""
        with self._file.write() as db:
            _settle(db, stands, self._now())

    def of(self, ids: Iterable[bytes | None]) -> Keys:
        """The keys of these ids; None for one that is erased, and for what has no key.

        Raises StorageUnavailable when the file does not know one of them.
        """
        wanted = sorted({key_id for key_id in ids if key_id is not None})
        found: dict[bytes | None, bytes | None] = {None: None}
        with _told_while_serving(), self._file.read() as db:
            masters = self._masters()
            for key_id, master, wrapping in _rows(db, wanted):
                found[key_id] = wrapping and self._unwrapped(masters, master, wrapping, key_id)
        if missing := [key_id for key_id in wanted if key_id not in found]:
            raise StorageUnavailable(f"{self._name} lacks the data keys of {len(missing)} persons")
        return found

    def known(self) -> tuple[set[bytes], set[bytes]]:
        """The ids of all keys there are, and of those that were erased."""
        with self._file.read() as db:
            rows = db.execute("SELECT id, slot IS NULL FROM data_keys").fetchall()
        return {i for i, gone in rows if not gone}, {i for i, gone in rows if gone}

    def erase(self, ids: Sequence[bytes]) -> None:
        """Erases the keys, from the file and its log. Raises ErasureIncomplete, Storage*."""
        with self._file.write() as db:
            _erase(db, ids, self._now())
        self._file.wipe()

    def rewrap(self) -> int:
        """Wraps all keys under the newest master key; how many that were.

        Some in a transaction: stopped at any moment, it goes on where it was when called again.
        Others may read and make keys meanwhile.
        """
        newest = next(iter(self._masters()))
        done = 0
        while count := self._rewrap_some(newest):
            done += count
        self._file.wipe()
        return done

    def by_master(self) -> dict[str, int]:
        """How many keys each master key wraps, by its id."""
        with self._file.read() as db:
            count = "SELECT master, count(*) FROM data_keys WHERE slot IS NOT NULL GROUP BY master"
            return dict(db.execute(count).fetchall())

    def check(self) -> list[str]:
        """Why the keys cannot be read and written now, a sentence each."""
        try:
            self._masters()
        except TemplateKeysRefused as error:
            return [str(error)]
        return self._file.check()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _require_masters(self) -> None:
        """Raises TemplateKeysRefused unless every key can be unwrapped, by one key of each."""
        masters = self._masters()
        one_each = (
            "SELECT master, min(id), content FROM data_keys JOIN slots USING (slot) GROUP BY master"
        )
        with self._file.read() as db:
            rows = db.execute(one_each).fetchall()
        for master, key_id, wrapping in rows:
            self._unwrapped(masters, master, wrapping, key_id)

    def _unwrapped(
        self, masters: Mapping[str, bytes], master: str, wrapping: bytes, key_id: bytes
    ) -> bytes:
        if master not in masters:
            raise TemplateKeysRefused(
                f"data keys are wrapped by the template key {master}, which the file lacks"
            )
        try:
            return unwrapped(masters[master], wrapping, key_id)
        except SealBroken:
            raise TemplateKeysRefused(
                f"the template key {master} is not the one that wrapped the data keys,"
                f" or {self._name} was changed"
            ) from None

    def _rewrap_some(self, newest: str) -> int:
        masters = self._masters()
        some = (
            "SELECT id, slot, master, content FROM data_keys JOIN slots USING (slot)"
            f" WHERE master <> ? LIMIT {REWRAPPED_AT_ONCE}"
        )
        with self._file.write() as db:
            rows = db.execute(some, (newest,)).fetchall()
            for key_id, slot, master, wrapping in rows:
                key = self._unwrapped(masters, master, wrapping, key_id)
                slots.refill(db, slot, wrapped(masters[newest], key, key_id))
                db.execute("UPDATE data_keys SET master = ? WHERE id = ?", (newest, key_id))
        return len(rows)


def _rows(db: Transaction, ids: Sequence[bytes]) -> Iterable[tuple[bytes, str, bytes | None]]:
    """(id, id of its master key, the wrapped key or None where it is erased) of those there."""
    for start in range(0, len(ids), IDS_A_READ):
        some = ids[start : start + IDS_A_READ]
        yield from db.execute(
            "SELECT id, master, content FROM data_keys LEFT JOIN slots USING (slot)"
            f" WHERE id IN ({', '.join('?' * len(some))})",
            some,
        )


def _settle(db: Transaction, stands: Callable[[bytes], bool], now: float) -> None:
    unsettled = [key_id for (key_id,) in db.execute("SELECT id FROM data_keys WHERE settled = 0")]
    _erase(db, [key_id for key_id in unsettled if not stands(key_id)], now)
    db.execute("UPDATE data_keys SET settled = 1 WHERE settled = 0")


def _erase(db: Transaction, ids: Sequence[bytes], now: float) -> None:
    for key_id in ids:
        slots.erase(db, "SELECT slot FROM data_keys WHERE id = ?", key_id)
        erased = "UPDATE data_keys SET slot = NULL, settled = 1, erased = ? WHERE id = ?"
        db.execute(f"{erased} AND slot IS NOT NULL", (now, key_id))


@contextlib.contextmanager
def _told_while_serving() -> Iterator[None]:
    """What would stop the start is, later, a store that cannot be used now."""
    try:
        yield
    except TemplateKeysRefused as error:
        raise StorageUnavailable(error.reason) from error
