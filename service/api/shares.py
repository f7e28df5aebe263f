"""Limits that callers share, of which none may hold so much that another gets nothing.

A caller may hold as much as stays free: alone half of all, two a third each. So whoever comes first
finds room, however many calls of another are under way.
"""

import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from functools import partial

from service.errors import BuffersFull, QueueFull, ServiceError, ShareUsed
from service.turns import Turn


class Shared:
    """An amount of something, of which callers hold parts. what: its name in errors.

    A caller that is None has no share to keep to. May be used from many threads.
    """

    def __init__(self, limit: int, what: str, full: type[QueueFull] | type[BuffersFull]) -> None:
        self.limit = limit
        self.held = 0
        self._what = what
        self._full = full
        self._of: dict[Hashable, int] = {}
        self._lock = threading.Lock()

    def require(self, amount: int, caller: Hashable) -> None:
        """Raise `full` or ShareUsed if `take` would be refused now."""
        free, own = self.limit - self.held, self._of.get(caller, 0)
        if amount > free:
            raise self._full(self.held, self.limit)
        if caller is not None and own + amount > free:
            raise ShareUsed(self._what, own, free)

    def take(self, amount: int, caller: Hashable) -> None:
        """Raises `full`, and ShareUsed where the caller would hold more than is free."""
        with self._lock:
            self.require(amount, caller)
            self._add(amount, caller)

    def give_back(self, amount: int, caller: Hashable) -> None:
        """Some of what the caller took is free again."""
        with self._lock:
            self._add(-amount, caller)

    def _add(self, amount: int, caller: Hashable) -> None:
        self.held += amount
        self._of[caller] = self._of.get(caller, 0) + amount
        if not self._of[caller]:
            del self._of[caller]


class Line:
    """The calls with images that are in progress; beyond `limit` the next is refused."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._places = Shared(limit, "places for calls", QueueFull)

    @property
    def inside(self) -> int:
        """How many calls there are, with those that are over and still at work in a thread."""
        return self._places.held

    def require_place(self, caller: Hashable) -> None:
        """Raise QueueFull or ShareUsed if there is no place."""
        self._places.require(1, caller)

    @contextmanager
    def place(
        self, turn: Turn | None = None, body: "Held | None" = None, caller: Hashable = None
    ) -> Iterator[None]:
        """A place for a call whose body has come. Raises QueueFull, ShareUsed.

        It is given back together with the body's bytes, when the call is over and no thread is at
        work for it any more: until then its images are in memory.
        """
        turn = turn or Turn()
        try:
            self._places.take(1, caller)
        except ServiceError:
            if body is not None:
                body.release()
            raise
        try:
            yield
        finally:
            turn.close(partial(self._leave, caller, body))

    def _leave(self, caller: Hashable, body: "Held | None") -> None:
        self._places.give_back(1, caller)
        if body is not None:
            body.release()


class Held:
    """The bytes of one body that count against a budget."""

    def __init__(self, budget: Shared, caller: Hashable) -> None:
        self._budget = budget
        self._caller = caller
        self._size_bytes = 0

    def add(self, size_bytes: int) -> None:
        """Count bytes that have come. Raises BuffersFull, ShareUsed."""
        self._budget.take(size_bytes, self._caller)
        self._size_bytes += size_bytes

    def require(self, size_bytes: int) -> None:
        """Raise as `add` does if there is no room for a body of that size now."""
        self._budget.require(size_bytes, self._caller)

    def release(self) -> None:
        """The bytes are in memory no more."""
        self._budget.give_back(self._size_bytes, self._caller)
        self._size_bytes = 0
