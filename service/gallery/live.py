"""The indexes of this process, each brought up to its gallery's truth before it answers.

An index is derived and disposable: it is built from the store, follows the store's change log, and
is built anew when the log has been cut off behind it. No answer leaves but what the store holds.
"""

import contextlib
import threading
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from service.errors import GalleryUnknown, SpaceMismatch, StorageUnavailable
from service.gallery.contract import Candidate
from service.gallery.index import FaceIndex, Hit, Rows

LOOKS: Final = 20  # the second is rare
ROWS_A_READ: Final = 8192  # 16 MiB: so short a read holds up no one's wiping of the log


@dataclass(frozen=True)
class Standing:
    """How a gallery stands in the store now. number: never another gallery's, even of one name.

    deletions: how many galleries of the store were ever deleted.
    """

    number: int
    name: str
    space: str | None
    faces: int
    revision: int
    deletions: int


@dataclass(frozen=True)
class Changes:
    """What makes an index of an earlier revision one of `revision`. removed: face numbers."""

    added: Rows
    removed: list[int]
    revision: int


class Truth(Protocol):
    """What a store tells the indexes; each method reads one committed state, the latest."""

    def standing(self, gallery: str) -> Standing:
        """How the gallery stands. Raises GalleryUnknown."""

    def changes(self, gallery: Standing, revision: int) -> Changes | None:
        """What changed after `revision`; None when the log begins later. Raises GalleryUnknown."""

    def faces_after(self, gallery: Standing, face: int, limit: int) -> Rows:
        """At most `limit` of the gallery's faces with greater numbers, in their order."""

    def candidates(self, hits: Sequence[Hit]) -> list[Candidate] | None:
        """The hits as candidates, in their order; None when one of the faces is there no more."""

    def standing_numbers(self, numbers: Collection[int]) -> set[int]:
        """Those of the numbers that are galleries still."""


class LiveIndexes:
    """Exact search over a store. threads: OpenMP threads of one search."""

    def __init__(self, truth: Truth, *, threads: int) -> None:
        self._truth = truth
        self._threads = threads
        self._lock = threading.Lock()
        self._followed: dict[int, _Followed] = {}
        self._deletions_seen = 0

    def search(
        self, gallery: str, space: str, embeddings_ND: NDArray[np.float32], top_k: int
    ) -> list[list[Candidate]]:
        """As Galleries.search."""
        for _ in range(LOOKS):
            standing = self._truth.standing(gallery)
            self._forget_deleted(standing)
            if standing.space not in (None, space):
                raise SpaceMismatch(gallery, value=space, limit=str(standing.space))
            index = self._follow(standing).caught_up(standing)
            hits = index.search(embeddings_ND, top_k)
            candidates = self._truth.candidates([hit for row in hits for hit in row])
            if candidates is not None:
                rest = iter(candidates)
                return [[next(rest) for _ in row] for row in hits]
            # a face of the answer was deleted while we searched: look again
        raise StorageUnavailable("faces are deleted faster than they are found")

    def warm_up(self, galleries: Iterable[str]) -> None:
        """Builds the galleries' indexes where they are not built yet."""
        for gallery in galleries:
            with contextlib.suppress(GalleryUnknown):  # deleted since
                standing = self._truth.standing(gallery)
                self._follow(standing).caught_up(standing)

    def remove(self, gallery: int, faces: Sequence[int]) -> None:
        """Takes deleted faces out of memory now, not with the next search."""
        followed = self._followed.get(gallery)
        if followed is not None:
            followed.remove(faces)

    def forget(self, gallery: int) -> None:
        """Lets go of a deleted gallery's index."""
        with self._lock:
            self._followed.pop(gallery, None)

    def _follow(self, standing: Standing) -> "_Followed":
        with self._lock:
            if standing.number not in self._followed:
                self._followed[standing.number] = _Followed(self._truth, self._threads)
            return self._followed[standing.number]

    def _forget_deleted(self, standing: Standing) -> None:
        """Lets go of galleries that another process deleted."""
        if standing.deletions == self._deletions_seen:
            return
        with self._lock:
            numbers = set(self._followed)
        for number in numbers - self._truth.standing_numbers(numbers):
            self.forget(number)
        self._deletions_seen = standing.deletions


class _Followed:
    """One gallery's index and how it keeps up."""

    def __init__(self, truth: Truth, threads: int) -> None:
        self._truth = truth
        self._threads = threads
        self._catching_up = threading.Lock()
        self.index = FaceIndex(threads=threads, revision=-1)

    def caught_up(self, standing: Standing) -> FaceIndex:
        """The index with everything that was committed up to the standing's revision."""
        if self.index.revision < standing.revision:
            with self._catching_up:
                while self.index.revision < standing.revision:
                    self._catch_up(standing)
        return self.index

    def remove(self, faces: Sequence[int]) -> None:
        """Takes faces out that are deleted, also those that are being read at this moment."""
        with self._catching_up:
            self.index.apply(Rows.none(), faces)

    def _catch_up(self, standing: Standing) -> None:
        changes = None
        if self.index.revision >= 0:
            changes = self._truth.changes(standing, self.index.revision)
        if changes is None:
            self.index = self._built(standing)
        else:
            self.index.apply(changes.added, changes.removed, revision=changes.revision)

    def _built(self, standing: Standing) -> FaceIndex:
        """A new index: the faces of `standing`, and perhaps some that came or went since.

        Those are settled by the change log after its revision, which names all of them.
        """
        index = FaceIndex(threads=self._threads, revision=standing.revision, room=standing.faces)
        last = 0
        while len(rows := self._truth.faces_after(standing, last, ROWS_A_READ)):
            index.apply(rows, [])
            last = int(rows.faces[-1])
        return index
