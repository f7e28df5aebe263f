"""How often a key may ask: a rate over a moving window and a quota over a fixed one, counted in one
file for all worker processes, so that both hold exactly over all of them and outlast a restart.

`limits` reads the words (10/second) and decides; it has no store of its own that processes of one
machine share without a server beside them, so its counts lie in an SQLite file here. A count that
the power takes with it is no loss worth a wait for the disk: synchronous=OFF.
"""

import math
import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from limits import RateLimitItem, parse
from limits.storage import Storage
from limits.storage.base import MovingWindowSupport
from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter, RateLimiter

from service.errors import QuotaSpent, RateLimited, StorageUnavailable

FILE: Final = "limits.sqlite3"
LARGEST_RATE: Final = 10_000
_PATIENCE_S: Final = 5.0
_RETRY_S: Final = 0.005
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS hits (key TEXT NOT NULL, at REAL NOT NULL, until REAL NOT NULL);
CREATE INDEX IF NOT EXISTS hits_of_key ON hits (key, at);
CREATE INDEX IF NOT EXISTS hits_by_end ON hits (until);
CREATE TABLE IF NOT EXISTS counts (
    key TEXT PRIMARY KEY, count INTEGER NOT NULL, until REAL NOT NULL
) WITHOUT ROWID;
"""


class Limits:
    """The limits of all keys, counted in a file that is made with the first."""

    def __init__(self, path: Path) -> None:
        self._counts = _Counts(path)
        self._rates = MovingWindowRateLimiter(self._counts)
        self._quotas = FixedWindowRateLimiter(self._counts)

    def spend(self, name: str, rate: str | None, quota: str | None) -> None:
        """Counts a request of the key of that name. Raises RateLimited, QuotaSpent, and
        StorageUnavailable where it cannot be counted."""
        try:
            if rate is not None and not self._rates.hit(item := parse(rate), name):
                raise RateLimited(rate, _wait_s(self._rates, item, name))
            if quota is not None and not self._quotas.hit(item := parse(quota), name):
                raise QuotaSpent(quota, _wait_s(self._quotas, item, name))
        except sqlite3.Error as error:
            raise StorageUnavailable(f"requests cannot be counted: {error}") from error
        except OSError as error:
            raise StorageUnavailable(f"requests cannot be counted: {error.strerror}") from error

    def close(self) -> None:
        """Closes the file; it is opened again when it is needed."""
        self._counts.close()


def require_rate(text: str) -> str:
    """The rate as it is kept. Raises ValueError."""
    item = _item(text)
    if item.amount > LARGEST_RATE:  # each request within its window is remembered
        raise ValueError(
            f"a rate is at most {LARGEST_RATE} a window, not {item.amount}: take a shorter window, "
            "or a quota"
        )
    return text.strip()


def require_quota(text: str) -> str:
    """The quota as it is kept. Raises ValueError."""
    _item(text)
    return text.strip()


def _item(text: str) -> RateLimitItem:
    try:
        item = None if re.search("[,;|]", text) else parse(text)  # of several it takes the first
    except ValueError:
        item = None
    if item is None or item.amount < 1:
        raise ValueError(f"a limit is as 10/second, 300/5 minutes or 10000/day, not {text[:200]!r}")
    return item


def _wait_s(limiter: RateLimiter, item: RateLimitItem, name: str) -> int:
    """Whole seconds until there is room again, at least 1."""
    return max(1, math.ceil(limiter.get_window_stats(item, name).reset_time - time.time()))


class _Counts(Storage, MovingWindowSupport):
    """The store that `limits` asks; every change is one transaction."""

    STORAGE_SCHEME = None

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    @property
    def base_exceptions(self) -> type[Exception]:
        return sqlite3.Error

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Whether there was room among the last `expiry` seconds' requests; then it is taken."""
        with self._turn() as connection:
            now = time.time()  # in its turn: what others counted before lies before
            connection.execute("DELETE FROM hits WHERE until <= ?", (now,))
            [count] = connection.execute(_HITS, (key, now - expiry, now)).fetchone()
            if count + amount > limit:
                return False
            connection.executemany(
                "INSERT INTO hits VALUES (?, ?, ?)", [(key, now, now + expiry)] * amount
            )
            return True

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """When the oldest request that still counts came, and how many do."""
        with self._turn() as connection:
            now = time.time()
            window = (key, now - expiry, now)
            count, oldest = connection.execute(_WINDOW, window).fetchone()
        return (now if oldest is None else oldest), count

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """The count with this, in a window that begins with the first request after the last."""
        with self._turn() as connection:
            now = time.time()
            connection.execute("DELETE FROM counts WHERE until <= ?", (now,))
            [count] = connection.execute(_COUNT, (key, amount, now + expiry)).fetchone()
        return int(count)

    def get(self, key: str) -> int:
        return int(self._standing(key)[0])

    def get_expiry(self, key: str) -> float:
        return self._standing(key)[1]

    def check(self) -> bool:
        with self._turn():
            return True

    def reset(self) -> None:
        with self._turn() as connection:
            connection.execute("DELETE FROM hits")
            connection.execute("DELETE FROM counts")

    def clear(self, key: str) -> None:
        with self._turn() as connection:
            connection.execute("DELETE FROM hits WHERE key = ?", (key,))
            connection.execute("DELETE FROM counts WHERE key = ?", (key,))

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _standing(self, key: str) -> tuple[int, float]:
        now = time.time()
        with self._turn() as connection:
            row = connection.execute(
                "SELECT count, until FROM counts WHERE key = ? AND until > ?", (key, now)
            ).fetchone()
        return row or (0, now)

    @contextmanager
    def _turn(self) -> Iterator[sqlite3.Connection]:
        """A transaction that is alone in the file, over all processes."""
        with self._lock:
            connection = self._connection = self._connection or _connect(self._path)
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")


# What was counted while the clock was ahead does not count once it is set right: a key would be
# refused until that time came again.
_HITS: Final = "SELECT count(*) FROM hits WHERE key = ? AND at > ? AND at <= ?"
_WINDOW: Final = "SELECT count(*), min(at) FROM hits WHERE key = ? AND at > ? AND at <= ?"
_COUNT: Final = """
INSERT INTO counts VALUES (?, ?, ?)
ON CONFLICT (key) DO UPDATE SET
    count = excluded.count + CASE WHEN until > excluded.until THEN 0 ELSE count END,
    until = min(until, excluded.until)
RETURNING count
"""


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)  # nobody else's; -wal and -shm get the same mode
    connection = sqlite3.connect(
        path, timeout=_PATIENCE_S, isolation_level=None, check_same_thread=False
    )
    try:
        _write_ahead(connection)
        connection.execute("PRAGMA synchronous = OFF")
        connection.executescript(_SCHEMA)
    except BaseException:
        connection.close()
        raise
    return connection


def _write_ahead(connection: sqlite3.Connection) -> None:
    """SQLite waits for its other locks, but not for this one: of several processes that open a new
    file at the same moment it would refuse all but one."""
    give_up = time.monotonic() + _PATIENCE_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise
            time.sleep(_RETRY_S)
