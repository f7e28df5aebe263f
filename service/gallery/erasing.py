"""Erasing: what follows once a deletion is committed, so that nothing is left of who is gone.

Their faces leave this process's index, their data keys the file of data keys, and what was deleted
the pages and the log of the gallery's file. A crash before that leaves it to the next start.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from service.errors import ErasureIncomplete, StorageFull, StorageUnavailable
from service.gallery.contract import DELETED, KEY_ERASED, LOG_TRUNCATED, OVERWRITTEN, Erasure
from service.gallery.live import LiveIndexes, Standing
from service.gallery.sqlite import SqliteFile
from service.gallery.vault import Vault


class Eraser:
    """Brings deletions in a gallery's file to their end. now: the clock, seconds since 1970."""

    def __init__(
        self, file: SqliteFile, vault: Vault, live: LiveIndexes, *, now: Callable[[], float]
    ) -> None:
        self._file = file
        self._vault = vault
        self._live = live
        self._now = now

    def gallery(self, number: int) -> None:
        """Erases what is left of a deleted gallery. Raises ErasureIncomplete."""
        self._live.forget(number)
        _, incomplete = self._finish()
        if incomplete is not None:
            raise ErasureIncomplete(incomplete)

    def person(self, home: Standing, person_id: str | None, faces: Mapping[str, int]) -> Erasure:
        """What was done for a person who is deleted. faces: their numbers by id."""
        self._live.remove(home.number, list(faces.values()))
        done, incomplete = self._finish()
        time = datetime.fromtimestamp(self._now(), UTC)
        return Erasure(home.name, person_id, tuple(faces), time, (DELETED, *done), incomplete)

    def face(self, home: Standing, number: int) -> None:
        """Erases what is left of a deleted face. Raises ErasureIncomplete."""
        self._live.remove(home.number, [number])
        self._file.wipe()

    def _finish(self) -> tuple[list[str], str | None]:
        """Erases the data keys that are due and wipes the file; what was done, and why not all."""
        done, incomplete = [], None
        try:
            if self._vault.erase_due():
                done.append(KEY_ERASED)
        except (ErasureIncomplete, StorageFull, StorageUnavailable) as error:
            incomplete = f"its data key is there: {getattr(error, 'reason', error)}"
        try:
            self._file.wipe()
            done += [OVERWRITTEN, LOG_TRUNCATED]
        except ErasureIncomplete as error:
            incomplete = error.reason
        return done, incomplete
