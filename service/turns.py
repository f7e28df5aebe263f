"""Fair turns: what many calls wait for goes round their callers, and round the calls of each.

`CURRENT` names the call for which a coroutine works; lines and pools read it where work is handed
in, so that the steps between know nothing of it. What is handed in outside of a call, as at
warm-up, is a call of its own.
"""

import threading
import weakref
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Executor, Future
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, Generic, ParamSpec, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")


class Turn:
    """A call that takes turns with others, and how much of its work threads are doing now.

    caller: the key that makes it; None: its calls are not counted together with others.
    """

    def __init__(self, caller: Hashable = None) -> None:
        self.caller = caller
        self._lock = threading.Lock()
        self._at_work = 0
        self._closed: Callable[[], None] | None = None

    @property
    def owner(self) -> Hashable:
        """Who takes turns with others: the caller, or the call where there is none."""
        return self if self.caller is None else self.caller

    def begin(self) -> bool:
        """Count one more piece of work; False if the call is over and it is not to be done."""
        with self._lock:
            if self._closed is not None:
                return False
            self._at_work += 1
            return True

    def end(self) -> None:
        """Count a piece of work that has ended."""
        with self._lock:
            self._at_work -= 1
            last = self._closed if self._at_work == 0 else None
        if last is not None:
            last()

    def close(self, then: Callable[[], None]) -> None:
        """Let no more work begin; call `then` when none is going on: now, or from its thread."""
        with self._lock:
            assert self._closed is None, "a call is over once"
            self._closed, idle = then, self._at_work == 0
        if idle:
            then()


CURRENT: Final[ContextVar[Turn | None]] = ContextVar("turn", default=None)


def current_turn() -> Turn:
    """The turn of the call that is being worked for; one of its own outside of calls."""
    return CURRENT.get() or Turn()


class FairLine(Generic[Item]):
    """A line in which callers take turns, in each the calls, and in each call what came first.

    Not safe among threads by itself.
    """

    def __init__(self) -> None:
        self._callers: dict[Hashable, dict[Turn, deque[Item]]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Item]:
        for calls in self._callers.values():
            for items in calls.values():
                yield from items

    def append(self, item: Item, turn: Turn) -> None:
        """Put the item behind all of its call, and a call that is new behind all of its caller."""
        self._callers.setdefault(turn.owner, {}).setdefault(turn, deque()).append(item)
        self._count += 1

    def pop(self, fits: Callable[[Item], bool] = lambda item: True) -> Item | None:
        """Take the next item; its call and its caller are the last then. None if none fits.

        fits: asked of the first item of each call.
        """
        for caller, calls in self._callers.items():
            for turn, items in calls.items():
                if fits(items[0]):
                    self._callers[caller] = self._callers.pop(caller)
                    calls[turn] = calls.pop(turn)
                    return self._taken(caller, turn, items[0])
        return None

    def remove(self, item: Item, turn: Turn) -> None:
        """Take an item out; nothing if it is not there."""
        if item in self._callers.get(turn.owner, {}).get(turn, ()):
            self._taken(turn.owner, turn, item)

    def _taken(self, caller: Hashable, turn: Turn, item: Item) -> Item:
        calls = self._callers[caller]
        calls[turn].remove(item)
        if not calls[turn]:
            del calls[turn]
        if not calls:
            del self._callers[caller]
        self._count -= 1
        return item


@dataclass(eq=False)
class _Job:
    """Work for a thread, until it is begun or its future is cancelled."""

    work: Callable[[], Any]
    turn: Turn
    light: bool
    future: "Future[Any]" = field(default_factory=Future)


class FairPool(Executor):
    """Threads that calls take turns at, and one more that does only light work.

    threads: how many pieces of work of any kind are done at once. is_light: told a piece's
    arguments. The one more thread is for light work of callers for whom no other thread works: so
    that it waits neither for heavy work nor for much of another caller's. What is cancelled before
    it is begun is let go at once, with all that it holds.
    """

    def __init__(
        self, threads: int, name: str, *, is_light: Callable[..., bool] = lambda *_: False
    ) -> None:
        self._is_light = is_light
        self._line: FairLine[_Job] = FairLine()
        self._at_work: Counter[Hashable] = Counter()  # by owner
        self._changed = threading.Condition()
        self._closed = False
        self._max_workers = threads + 1  # as concurrent.futures' own pools name it
        self._threads = [
            threading.Thread(
                target=self._serve, args=(spare,), name=f"{name}-{number}", daemon=True
            )
            for number, spare in enumerate([*[False] * threads, True])
        ]
        for thread in self._threads:
            thread.start()

    def submit(
        self,
        function: Callable[Arguments, Result],
        /,
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> "Future[Result]":
        """The result to come. Raises RuntimeError after `shutdown`."""
        light = self._is_light(*args, **kwargs)
        job = _Job(lambda: function(*args, **kwargs), current_turn(), light)
        with self._changed:
            if self._closed:
                raise RuntimeError("the threads are shut down")
            self._line.append(job, job.turn)
            self._changed.notify_all()
        future, weak = job.future, weakref.ref(job)  # a future that had its job would be a cycle
        future.add_done_callback(lambda done: self._let_go(weak()) if done.cancelled() else None)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let nothing more in; end the threads when what is in line is done, or cancelled."""
        with self._changed:
            self._closed = True
            left = list(self._line) if cancel_futures else []
            self._changed.notify_all()
        for job in left:
            job.future.cancel()
        if wait:
            for thread in self._threads:
                thread.join()

    def _let_go(self, job: _Job | None) -> None:
        if job is None:
            return
        with self._changed:
            self._line.remove(job, job.turn)
            self._changed.notify_all()

    def _serve(self, spare: bool) -> None:
        while (job := self._next(spare)) is not None:
            self._do(job)
            del job  # and with it the photograph, while this thread waits

    def _next(self, spare: bool) -> _Job | None:
        """The next job, counted as begun; None at the end. spare: for the thread of light work."""

        def fits(job: _Job) -> bool:
            return not spare or (job.light and not self._at_work[job.turn.owner])

        with self._changed:
            while True:
                job = self._line.pop(fits)
                if job is not None:
                    if job.turn.begin():
                        self._at_work[job.turn.owner] += 1
                        return job
                    job.future.cancel()
                else:
                    if self._closed and (spare or not len(self._line)):
                        return None
                    self._changed.wait()

    def _do(self, job: _Job) -> None:
        result, failure = None, None
        runs = job.future.set_running_or_notify_cancel()
        try:
            if runs:
                result = job.work()
        except BaseException as error:
            failure = error
        job.turn.end()  # before its future is done: who waits for that finds it counted
        if runs and failure is None:
            job.future.set_result(result)
        elif runs:
            job.future.set_exception(failure)
        with self._changed:
            self._at_work[job.turn.owner] -= 1
            if not self._at_work[job.turn.owner]:
                del self._at_work[job.turn.owner]
            self._changed.notify_all()  # another of the same caller may fit now
        del job, failure  # else a failure keeps this frame, and with it the photograph and itself
