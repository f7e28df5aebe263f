"""Threads for what changes the store, apart from those that read it, and not without end.

Who writes may wait for the store's lock for seconds, and would hold a thread of those in which all
other calls are worked on: a few writers then keep everybody from reading.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from service.errors import QueueFull

P = ParamSpec("P")
R = TypeVar("R")


class Writers:
    """At most `limit` writers at once, at work or waiting for the store; the next is refused."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._threads = ThreadPoolExecutor(limit, "writer")
        self._guard = threading.Lock()
        self._inside = 0

    async def run(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """What `work` gives, in a thread. Raises QueueFull.

        Of a caller who has gone the work goes on if it has begun, and has its place until it ends.
        """
        with self._guard:
            if self._inside >= self.limit:
                raise QueueFull(self._inside, self.limit)
            self._inside += 1
        try:
            written = self._threads.submit(work, *args, **kwargs)
        except BaseException:
            self._leave()
            raise
        written.add_done_callback(self._leave)
        return await asyncio.wrap_future(written)

    def close(self) -> None:
        """Ends the threads, when they are done."""
        self._threads.shutdown()

    def _leave(self, written: "Future[Any] | None" = None) -> None:
        with self._guard:
            self._inside -= 1
