"""One network for many callers: crops that wait together run together, answers never cross.

No waiter is forgotten: each gets its own rows, the failure of a batch it was in, or has left and is
dropped before more work goes into it. Nobody waits for company: what is there when the network
becomes free is the next batch. Those who wait take turns, a batch each, and so do calls and callers
(service/turns.py), so that many photographs of crowds do not hold up one of a single face.
"""

import threading
import time
import weakref
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import NotReady, QueueFull
from service.turns import FairLine, Turn, current_turn

Array = NDArray[Any]


@dataclass(eq=False)
class _Waiter:
    """A caller's crops, how many of them were taken into batches, and the answers by first crop."""

    crops: Array
    answer: "Future[Array]"
    turn: Turn
    since_s: float = field(default_factory=time.perf_counter)
    taken: int = 0
    rows: dict[int, Array] = field(default_factory=dict)
    failed: bool = False

    @property
    def left(self) -> int:
        return len(self.crops) - self.taken


@dataclass(frozen=True)
class _Piece:
    """The crops from start to stop of a waiter."""

    waiter: _Waiter
    start: int
    stop: int

    @property
    def crops(self) -> Array:
        return self.waiter.crops[self.start : self.stop]


class Batcher:
    """Merges crops of concurrent callers into batches of at most `max_batch` for `run`.

    run: (N, ...) -> (N, D), a row's answer independent of its neighbours; called from `runners`
    threads. max_waiting: crops in line at which a further caller is refused.
    line_is: told how many crops are in line whenever that changes. batch_begins: told of each batch
    how many crops it has, and how long in seconds each caller waited whom it is the first to serve.
    Both are called under the line's lock, and must be quick.
    """

    def __init__(
        self,
        run: Callable[[Array], Array],
        *,
        max_batch: int,
        max_waiting: int,
        name: str,
        runners: int = 1,
        line_is: Callable[[int], None] = lambda crops: None,
        batch_begins: Callable[[int, list[float]], None] = lambda crops, waits_s: None,
    ) -> None:
        self._run = run
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._line_is = line_is
        self._batch_begins = batch_begins
        self._line: FairLine[_Waiter] = FairLine()
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"batcher-{name}-{number}", daemon=True)
            for number in range(runners)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """How many crops are in line."""
        with self._changed:
            return self._crops_in_line()

    def submit(self, crops: Array) -> "Future[Array]":
        """The rows of `run` for these crops, to come; cancel it to leave the line.

        crops: (N, ...), N at least 1, not modified. A caller is let in whole, however many crops it
        brings, as long as the line is not full before, and who makes the call has not more crops in
        it than are free for others. Raises QueueFull, NotReady after `close`.
        """
        if len(crops) == 0:
            raise ValueError("there are no crops to run")
        with self._changed:
            if self._closed:
                raise NotReady(["the service is stopping"])
            if (waiting := self._crops_in_line()) >= self._max_waiting:
                raise QueueFull(waiting, self._max_waiting)
            waiter = _Waiter(crops, Future(), current_turn())
            free = self._max_waiting - waiting
            if (own := self._crops_of(waiter.turn.caller)) > free:
                raise QueueFull(own, free)
            self._line.append(waiter, waiter.turn)
            self._line_is(waiting + waiter.left)
            self._changed.notify()
        answer, weak = waiter.answer, weakref.ref(waiter)  # not a cycle, which would keep the crops
        answer.add_done_callback(lambda done: self._let_go(weak()) if done.cancelled() else None)
        return answer

    def close(self) -> None:
        """Lets nobody in any more, answers who is in line, and ends the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _let_go(self, waiter: _Waiter | None) -> None:
        if waiter is None:
            return
        with self._changed:
            self._line.remove(waiter, waiter.turn)
            if not self._line:  # else the next batch tells
                self._line_is(0)

    def _crops_in_line(self) -> int:
        return sum(waiter.left for waiter in self._line if not waiter.answer.cancelled())

    def _crops_of(self, caller: Hashable) -> int:
        if caller is None:
            return 0
        return sum(waiter.left for waiter in self._line if waiter.turn.caller == caller)

    def _work(self) -> None:
        while self._run_next():  # what it had in hand is let go of before it waits again
            pass

    def _run_next(self) -> bool:
        """Runs the next batch; False when closed and all are taken."""
        if not (batch := self._next_batch()):
            return False
        try:
            pieces = [piece.crops for piece in batch]
            rows = self._run(np.concatenate(pieces) if len(pieces) > 1 else pieces[0])
            if len(rows) != sum(map(len, pieces)):
                raise RuntimeError(f"{len(rows)} answers for {sum(map(len, pieces))} crops")
        except Exception as failure:
            self._fail(batch, failure)
        else:
            self._hand_out(batch, rows)
        return True

    def _next_batch(self) -> list[_Piece]:
        """The next crops to run; none when closed and all are taken."""
        batch: list[_Piece] = []
        room = self._max_batch
        with self._changed:
            while not batch:
                self._changed.wait_for(lambda: self._line or self._closed)
                if not self._line:
                    return []
                while room and (waiter := self._line.pop()) is not None:
                    if waiter.answer.done():  # it left, or another piece of it failed
                        continue
                    start, waiter.taken = waiter.taken, waiter.taken + min(room, waiter.left)
                    room -= waiter.taken - start
                    batch.append(_Piece(waiter, start, waiter.taken))
            if batch[-1].waiter.left:
                self._line.append(batch[-1].waiter, batch[-1].waiter.turn)
            if self._line:
                self._changed.notify()
            self._line_is(self._crops_in_line())
            now_s = time.perf_counter()
            waits_s = [now_s - piece.waiter.since_s for piece in batch if piece.start == 0]
            self._batch_begins(self._max_batch - room, waits_s)
        return batch

    def _hand_out(self, batch: list[_Piece], rows: Array) -> None:
        at = 0
        for piece in batch:
            waiter, count = piece.waiter, piece.stop - piece.start
            with self._changed:
                waiter.rows[piece.start] = rows[at : at + count]
                whole = sum(map(len, waiter.rows.values())) == len(waiter.crops)
            at += count
            if whole and waiter.answer.set_running_or_notify_cancel():
                waiter.answer.set_result(
                    np.concatenate([r for _, r in sorted(waiter.rows.items())])
                )

    def _fail(self, batch: list[_Piece], failure: Exception) -> None:
        for waiter in {piece.waiter for piece in batch}:
            with self._changed:  # another runner may fail with another piece of it
                first, waiter.failed = not waiter.failed, True
            if first and waiter.answer.set_running_or_notify_cancel():
                waiter.answer.set_exception(failure)
