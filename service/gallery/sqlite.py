"""The SQLite files of the gallery: their transactions and errors. sqlite3's one home.

WAL with synchronous=FULL: a transaction is on disk when `write` ends. Many readers, one writer at a
time, over threads and processes. Every sqlite3 error leaves as StorageFull or StorageUnavailable.

Writing and moving the log into the file (a checkpoint, which SQLite also does by itself after some
commits) take turns, see turns.py. SQLite 3.7.0 to 3.51.2 can lose commits when a checkpoint begins
while another connection commits (sqlite.org/wal.html, the WAL-reset bug); here it never does.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from service.errors import ErasureIncomplete, StorageFull, StorageUnavailable
from service.gallery.schema import SCHEMA
from service.gallery.turns import RETRY_S, Turns

Transaction = sqlite3.Connection  # within a `read` or `write` block

PAGE_BYTES: Final = 8192  # three embeddings a page, where the usual 4096 bytes hold one
WAL_KEPT_BYTES: Final = 64 * 2**20
_FULL: Final = "the disk of MIEN_DATA is full: nothing can be enrolled"
NEARLY_FULL_BYTES: Final = 2**20  # an I/O error with less room than this is a full disk
PRAGMAS: Final = (
    f"page_size = {PAGE_BYTES}",  # of a file yet to be made
    "synchronous = FULL",
    "fullfsync = ON",  # macOS: through the drive's cache; elsewhere without effect
    "checkpoint_fullfsync = ON",
    "foreign_keys = ON",
    "secure_delete = ON",
    "temp_store = MEMORY",  # no embedding in a temporary file
    f"journal_size_limit = {WAL_KEPT_BYTES}",
)
_TABLES: Final = "SELECT name FROM sqlite_schema WHERE type = 'table'"
_SHARED_FIRST: Final = 0x40000002  # SQLite's bytes for the locks of readers
_SHARED_SIZE: Final = 510
_A_TRY_S: Final = 0.2  # to empty the log; Mien's own readers leave it sooner
REASONS: Final = {
    sqlite3.SQLITE_BUSY: "another process keeps it locked",
    sqlite3.SQLITE_LOCKED: "another thread keeps it locked",
    sqlite3.SQLITE_READONLY: "it is read-only",
    sqlite3.SQLITE_PERM: "its file may not be opened",
    sqlite3.SQLITE_CANTOPEN: "its file cannot be opened",
    sqlite3.SQLITE_IOERR: "the disk failed",
    sqlite3.SQLITE_CORRUPT: "its file is damaged",
    sqlite3.SQLITE_NOTADB: "its file is no database, or damaged",
}


_DAMAGE: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class RowDamaged(sqlite3.DatabaseError):
    """A row that SQLite can read and nobody has written so. Within a transaction alone."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    sqlite_errorname = "SQLITE_CORRUPT"


@contextlib.contextmanager
def damage_told(what: str) -> Iterator[None]:
    """What reading a row's content fails with becomes RowDamaged, with `what` it is."""
    try:
        yield
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
        raise RowDamaged(f"{what} is not as it was written") from error


class SqliteFile:
    """A SQLite file, made if it is not there.

    path: in a folder that exists. patience_s: how long a call waits for another's lock. schema: the
    gallery's unless given. Fork first, then open: a child that uses what its parent opened is
    refused, for SQLite's locks do not outlive a fork (sqlite.org/howtocorrupt.html, 2.6).
    """

    def __init__(
        self, path: Path, *, patience_s: float, schema: Sequence[str] | None = None
    ) -> None:
        self._path = path
        self._schema = SCHEMA if schema is None else schema
        self._process = os.getpid()
        self._patience_s = patience_s
        self._idle_readers: list[sqlite3.Connection] = []
        self._closed = False
        self._write_failed = False
        self._damage: str | None = None
        self._wipe_due = True  # an earlier process may have died before it had wiped
        with _translated(path.parent), _disk_errors_translated(), contextlib.ExitStack() as undo:
            self._turns = Turns(path, patience_s=patience_s)
            undo.callback(self._turns.close)
            with self._turns.mine():  # who puts another file in its place has the turn, too
                path.touch(mode=0o600)  # nobody else's; -wal and -shm get the same mode
                self._writer = self._connected()
                undo.callback(self._writer.close)
                self._migrate()
                self._opened = path.stat()
            _sync(path.parent)
            undo.pop_all()
        self._wipe_if_due()

    @contextlib.contextmanager
    def read(self) -> Iterator[Transaction]:
        """A transaction that sees one state: everything committed before, in any process."""
        with self._told(), self._reader() as connection:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                _roll_back(connection)

    @contextlib.contextmanager
    def write(self) -> Iterator[Transaction]:
        """A transaction that is on disk when the block ends, or undone when the block raises."""
        try:
            with self._told(), self._turn_to_write() as connection:
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                    if reason := self._misplaced():  # nobody would find again what is written
                        raise StorageUnavailable(reason)
                    connection.execute("COMMIT")
                finally:
                    _roll_back(connection)
        except (StorageFull, StorageUnavailable):
            self._write_failed = True
            raise
        self._write_failed = False
        self._wipe_if_due()

    def wipe(self) -> None:
        """Brings what was deleted out of the files: the database's pages and the write-ahead log.

        Raises ErasureIncomplete when a reader elsewhere holds the log longer than patience_s, or
        the disk fails; it is tried again after each write and at the next start.
        """
        self._wipe_due = True
        try:
            self._empty_log(self._patience_s)
        except StorageFull as error:
            raise ErasureIncomplete("the disk is full") from error
        except StorageUnavailable as error:
            raise ErasureIncomplete(error.reason) from error

    def check(self) -> list[str]:
        """Why the file cannot be read and written now, a sentence each.

        After a write that the disk refused a real one is tried, else only the lock is taken. A
        file in which damage was met once stays damaged: what is whole in it is read on.
        """
        if reason := self._misplaced() or self._damage:
            return [reason]
        try:
            if reason := _unwritable(self._path.parent):
                return [reason]
            with self.read() as connection:
                for (name,) in connection.execute(_TABLES).fetchall():
                    connection.execute(f'SELECT 1 FROM "{name}" LIMIT 1').fetchall()
            if self._write_failed:
                with self.write() as connection:
                    connection.execute(f"PRAGMA user_version = {len(self._schema)}")
                return []
            with self._told(), self._turn_to_write() as connection:
                connection.execute("BEGIN IMMEDIATE")
                _roll_back(connection)
        except StorageUnavailable as error:
            return [str(error)]
        except StorageFull:
            return [_FULL]
        return []

    def close(self) -> None:
        """Closes every connection; the last process to close moves the log into the file."""
        if self._process != os.getpid():
            return
        self._closed = True
        self._turns.close()
        with contextlib.suppress(IndexError):  # none is left: another thread may be closing too
            while True:
                self._idle_readers.pop().close()
        self._writer.close()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turns errors of SQLite into ours, and notes that the file is damaged."""
        try:
            yield
        except sqlite3.Error as error:
            told = _storage_error(error, self._path.parent)
            if _primary_code(error) in _DAMAGE:
                where = f"{self._path.name} is damaged"
                what = f": {error}" if isinstance(error, RowDamaged) else ""
                self._damage = f"{where}{what}; bring back a backup (docs/backup.md)"
            raise told from error

    @contextlib.contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        """A connection for the caller alone: an idle one, or one more."""
        self._require_open()
        try:
            connection = self._idle_readers.pop()
        except IndexError:
            connection = self._connected()
            connection.execute("PRAGMA query_only = ON")
        try:
            yield connection
        finally:
            self._idle_readers.append(connection)
            if self._closed:  # meanwhile; whoever pops it closes it
                self.close()

    @contextlib.contextmanager
    def _turn_to_write(self) -> Iterator[Transaction]:
        """The one connection that writes, in this file's turn."""
        self._require_open()
        with self._turns.mine():
            yield self._writer

    def _require_open(self) -> None:
        if self._process != os.getpid():
            raise StorageUnavailable("it was opened before this process was forked")
        if self._closed:
            raise StorageUnavailable("it is closed")

    def _misplaced(self) -> str | None:
        """Why the file that is open, which SQLite writes on to, is not the one at the path."""
        try:
            there = self._path.stat()
        except OSError:
            return f"{self._path.name} is gone from its folder"
        if os.path.samestat(there, self._opened):
            return None
        return f"{self._path.name} is another file than the one that is open: start again"

    def _connected(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path,
            timeout=self._patience_s,
            isolation_level=None,  # transactions are begun and ended here, in the open
            check_same_thread=False,  # one thread at a time, see _reader and _turn_to_write
        )
        try:
            for pragma in PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _migrate(self) -> None:
        """Brings the file to the newest schema."""
        connection = self._writer
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN IMMEDIATE")
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > len(self._schema):
                raise StorageUnavailable(f"a newer Mien wrote it (schema {version})")
            for script in self._schema[version:]:
                for statement in script.split(";\n"):
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {len(self._schema)}")
            connection.execute("COMMIT")
        finally:
            _roll_back(connection)

    def _wipe_if_due(self) -> None:
        """Wipes what an earlier `wipe` could not: without waiting, and silent if it fails again."""
        if self._wipe_due:
            with contextlib.suppress(StorageFull, StorageUnavailable):
                self._empty_log(0)

    def _empty_log(self, wait_s: float) -> None:
        """Moves the log into the file, where deleted content is zeros, and cuts it to nothing.

        A turn a try: a reader that stays, such as a backup, does not keep others from writing.
        """
        give_up = time.monotonic() + wait_s
        while not self._emptied(min(_A_TRY_S, give_up - time.monotonic())):
            if time.monotonic() > give_up:
                raise StorageUnavailable("another process is reading the write-ahead log")
            time.sleep(RETRY_S)

    def _emptied(self, wait_s: float) -> bool:
        """Whether the log is empty now, having waited for readers to leave it.

        SQLite does not wait for another program that is moving the log itself.
        """
        with _translated(self._path.parent), self._turn_to_write() as connection:
            connection.execute(f"PRAGMA busy_timeout = {max(0, round(wait_s * 1000))}")
            try:
                (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                connection.execute(f"PRAGMA busy_timeout = {round(self._patience_s * 1000)}")
            if not busy:
                _sync(self._path.with_name(self._path.name + "-wal"))
                self._wipe_due = False
        return not busy


@contextlib.contextmanager
def reading(path: Path, *, patience_s: float = 5.0) -> Iterator[Transaction]:
    """A connection that reads a file which must be there, and changes nothing of it.

    Raises StorageUnavailable, and StorageFull for what is written elsewhere.
    """
    with _translated(path.parent):
        where = f"{path.absolute().as_uri()}?mode=ro"
        connection = sqlite3.connect(where, uri=True, timeout=patience_s, isolation_level=None)
        try:
            connection.execute("PRAGMA temp_store = MEMORY")
            yield connection
        finally:
            connection.close()


@contextlib.contextmanager
def alone_with(path: Path, *, patience_s: float = 5.0) -> Iterator[None]:
    """Nobody else has the file open, or opens it, while the block runs. It may be damaged.

    Whoever has a file with a write-ahead log open keeps a lock on SQLite's bytes for readers
    (SHARED_FIRST and SHARED_SIZE of its os.h). Who is about to open it stands in line for the turn,
    with nothing of it open yet: a connection that waited for SQLite's lock would go on in the file
    that was put aside, and in the log of the one in its place. Raises StorageUnavailable where
    somebody has it open.
    """
    with contextlib.ExitStack() as stack:
        with _disk_errors_translated():
            turns = Turns(path, patience_s=patience_s)
            stack.callback(turns.close)
            stack.enter_context(turns.mine())
            file = os.open(path, os.O_RDWR)
            stack.callback(os.close, file)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, _SHARED_SIZE, _SHARED_FIRST)
        except OSError as error:
            raise StorageUnavailable("another process has it open") from error
        yield


@contextlib.contextmanager
def _translated(folder: Path) -> Iterator[None]:
    """Turns errors of SQLite into StorageFull or StorageUnavailable."""
    try:
        yield
    except sqlite3.Error as error:
        raise _storage_error(error, folder) from error


@contextlib.contextmanager
def _disk_errors_translated() -> Iterator[None]:
    """Turns errors of the system's own calls into StorageFull or StorageUnavailable."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise StorageFull() if full else StorageUnavailable(str(error.strerror)) from error


def _storage_error(error: sqlite3.Error, folder: Path) -> StorageFull | StorageUnavailable:
    code = _primary_code(error)
    if code == sqlite3.SQLITE_FULL:
        return StorageFull()
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) and _nearly_full(folder):
        return StorageFull()  # for one, the shared index of the log could not grow
    if isinstance(error, RowDamaged):
        return StorageUnavailable(f"{REASONS[code]}: {error}")
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    return StorageUnavailable(REASONS.get(code, f"SQLite says {name}"))


def _primary_code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def _unwritable(folder: Path) -> str | None:
    """Why nothing can be written to the folder's disk, as far as it can be told without trying."""
    with _disk_errors_translated():
        disk = os.statvfs(folder)
    if disk.f_flag & os.ST_RDONLY:
        return str(StorageUnavailable("its disk is read-only"))
    return _FULL if disk.f_bavail * disk.f_frsize < NEARLY_FULL_BYTES else None


def _nearly_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < NEARLY_FULL_BYTES
    except OSError:
        return False


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _sync(path: Path) -> None:
    """Has the file, or a folder's entries, on disk; a log that is gone has nothing to sync."""
    with _disk_errors_translated(), contextlib.suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
