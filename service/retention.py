"""Retention: whom their gallery keeps no longer is erased, each with a receipt.

The service sweeps at its start and every few minutes, one process at a time; `mien sweep` does the
same by hand. A clock that was set wrong must not erase a gallery at a stroke: every sweep notes the
clock in the store, and one that leapt by more than a day, as after a pause of the service that
long, erases nobody for a day, while the log says how many are waiting. What is erased then is in
the audit log, person by person, behind an entry that says how many were due.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from service.errors import MienError
from service.gallery.contract import Galleries
from service.guard.receipts import EXPIRED, Receipts
from service.observe.logs import log

EVERY_S: Final = 300.0
SWEEP: Final = "retention.sweep"
_ITSELF: Final = "mien"


@dataclass(frozen=True)
class Swept:
    """What a sweep did. due: how many were to be erased; held_s: for how long nobody is, since the
    clock is not trusted yet; receipts: of those who were."""

    due: int
    held_s: float
    receipts: list[dict[str, Any]] = field(default_factory=list)


def sweep(
    galleries: Galleries,
    receipts: Receipts,
    *,
    least_pause_s: float = 0.0,
    trust_clock: bool = False,
    stopped: Callable[[], bool] = lambda: False,
) -> Swept:
    """What was done: everybody who is kept no longer is erased, unless the clock leapt.

    least_pause_s: nothing is done when another process swept since. trust_clock: somebody has
    looked at the clock. stopped: asked before each person. Nobody is erased whom the log does not
    name: it says that it begins, and then has the receipt, unless it fails or the process dies just
    in between. Raises AuditUnavailable, Storage*.
    """

    def begins(gallery: str, person_id: str | None) -> None:
        who = {"gallery": gallery, "person_id": person_id}
        receipts.audit.record(_ITSELF, EXPIRED, phase="begun", **who)

    held_s = galleries.note_clock(least_pause_s=least_pause_s)
    due = 0 if held_s is None else galleries.count_expired()
    if held_s is None or due == 0:
        return Swept(0, held_s or 0.0)
    if held_s > 0 and not trust_clock:
        log.warning("retention waits: the clock leapt", due=due, held_s=round(held_s))
        return Swept(due, held_s)
    swept = Swept(due, 0.0)
    receipts.audit.record(_ITSELF, SWEEP, due=due)
    while not stopped() and (erasure := galleries.erase_expired(begins)) is not None:
        told = receipts.draft(**vars(erasure))
        swept.receipts.append(receipts.record(_ITSELF, EXPIRED, told))
    log.info("retention swept", erased=len(swept.receipts))
    return swept


async def keep_swept(galleries: Galleries, receipts: Receipts) -> None:
    """Sweeps now and every few minutes, until it is cancelled; a sweep under way ends soon then."""
    leaving = threading.Event()

    def once() -> None:
        try:
            sweep(galleries, receipts, least_pause_s=EVERY_S / 2, stopped=leaving.is_set)
        except MienError as error:
            log.warning("retention was not swept", reason=str(error))

    thread = ThreadPoolExecutor(1, "retention")  # it may wait for the store's lock
    try:
        while True:
            await asyncio.get_running_loop().run_in_executor(thread, once)
            await asyncio.sleep(EVERY_S)
    finally:
        leaving.set()
        thread.shutdown(wait=False)
