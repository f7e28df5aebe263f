"""Turns to write: one at a time over all threads of all processes, nobody waiting for ever.

Whoever wants a turn takes the place at its head first, then the turn, then leaves the place to the
next: who has just had a turn finds the place taken and cannot jump in again. Turn and place are
locks on two files, which the system lets go when a process dies. The threads of a process stand in
line, first come, first served.
"""

import contextlib
import fcntl
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from service.errors import StorageUnavailable

RETRY_S: Final = 0.001


class Turns:
    """Whose turn it is among all that opened the same path. patience_s: how long to wait for one.

    Makes the files PATH-turn and PATH-next, which stay empty.
    """

    def __init__(self, path: Path, *, patience_s: float) -> None:
        self._patience_s = patience_s
        self._line = _Line()
        self._turn = os.open(f"{path}-turn", os.O_RDWR | os.O_CREAT, 0o600)
        self._next = os.open(f"{path}-next", os.O_RDWR | os.O_CREAT, 0o600)
        self._closed = False

    @contextlib.contextmanager
    def mine(self) -> Iterator[None]:
        """Has the turn while the block runs. Raises StorageUnavailable when it does not come."""
        give_up = time.monotonic() + self._patience_s
        if not self._line.enter(self._patience_s):
            raise StorageUnavailable("it is busy with other writes")
        try:
            with contextlib.ExitStack() as turn:
                with self._locked(self._next, give_up):
                    turn.enter_context(self._locked(self._turn, give_up))
                yield
        finally:
            self._line.leave()

    def close(self) -> None:
        """Waits for the thread whose turn it is; nobody has a turn afterwards."""
        self._line.enter(None)
        if not self._closed:
            self._closed = True
            os.close(self._turn)
            os.close(self._next)
        self._line.leave()

    @contextlib.contextmanager
    def _locked(self, file: int, give_up: float) -> Iterator[None]:
        if self._closed:
            raise StorageUnavailable("it is closed")
        while not _taken(file):
            if time.monotonic() > give_up:
                raise StorageUnavailable("another process keeps it locked")
            time.sleep(RETRY_S)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


class _Line:
    """A lock among threads that is handed from one to the next in the order of their coming."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._taken = False
        self._waiting: deque[threading.Event] = deque()

    def enter(self, patience_s: float | None) -> bool:
        """Whether the lock is ours now; not, when patience_s ran out."""
        with self._guard:
            if not self._taken:
                self._taken = True
                return True
            called = threading.Event()
            self._waiting.append(called)
        if called.wait(patience_s):
            return True
        with self._guard:
            if called.is_set():  # in the last moment
                return True
            self._waiting.remove(called)
            return False

    def leave(self) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._taken = False


def _taken(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
