"""Readiness: the promises that cannot be kept now, looked at by a thread of its own.

A look may wait for the store's lock for seconds. So nobody looks in a thread that others need, and
however many ask, there is one look at a time. It is taken every few seconds, asked for or not, and
what changed since the last one is in the log once.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from service.errors import MienError
from service.observe.logs import log

EVERY_S: Final = 5.0
QUICK_S: Final = 1.0
PATIENCE_S: Final = 15.0
SLOW: Final = f"a look at the store has not ended within {PATIENCE_S:g} s"
FAILED: Final = "a look at the store ended in a fault, which the log has"


class Readiness:
    """Why calls cannot be answered as they should be. look: says so now, a sentence each; blocks.

    reasons: what the last look found.
    """

    def __init__(self, look: Callable[[], list[str]]) -> None:
        self._look = look
        self._thread: ThreadPoolExecutor | None = None
        self._next: Future[None] | None = None
        self.reasons: list[str] = []

    async def now(self) -> list[str]:
        """What a look finds that begins after this was asked.

        Where the last one found reasons, those, if it takes more than a moment; that all is well is
        never said by an old look. Where none ends in time, that.
        """
        look = asyncio.wrap_future(self._begun())
        if self.reasons:
            await asyncio.wait([look], timeout=QUICK_S)
            return self.reasons
        await asyncio.wait([look], timeout=PATIENCE_S)
        return self.reasons if look.done() else [SLOW]

    async def keep(self) -> None:
        """Looks every few seconds, until it is cancelled."""
        while True:
            await self.now()
            await asyncio.sleep(EVERY_S)

    def close(self) -> None:
        """Ends the thread; an application that starts again looks again."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
        self._thread = self._next = None

    def _begun(self) -> "Future[None]":
        """A look that has not begun yet: one that somebody else has asked for will do."""
        if self._next is None or self._next.running() or self._next.done():
            self._thread = self._thread or ThreadPoolExecutor(1, "readiness")
            self._next = self._thread.submit(self._look_once)
        return self._next

    def _look_once(self) -> None:
        try:
            reasons = self._look()
        except MienError as error:
            reasons = [str(error)]
        except Exception:  # else /readyz would say for ever what it said before
            log.exception("a look at the store failed")
            reasons = [FAILED]
        before, self.reasons = self.reasons, reasons
        if new := [reason for reason in reasons if reason not in before]:
            log.warning("not ready", reasons=new)
        elif before and not reasons:
            log.info("ready again")
