"""An exact index of one gallery's faces, in memory. faiss's one home.

The rows are a matrix of our own over which FAISS runs the search of IndexFlatIP: removing from a
FAISS index moves the rows behind it and copies them all, here the last row takes the place of the
one removed. Suffixes: N queries, K fetched rows, D = 512.
"""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import faiss
import numpy as np
from numpy.typing import NDArray

from service.gallery.contract import DIMENSIONS

FIRST_FETCH: Final = 256  # rows; FAISS is as fast as with 5
# Two ways of summing 512 products of unit vectors in float32 differ by less than this.
ROUNDING: Final = 1e-5


@dataclass(frozen=True)
class Rows:
    """Faces to index. faces, persons: int64 (R,), their numbers; embeddings: float32 (R, 512)."""

    faces: NDArray[np.int64]
    persons: NDArray[np.int64]
    embeddings: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.faces)

    @staticmethod
    def none() -> "Rows":
        """No rows."""
        numbers = np.empty(0, np.int64)
        return Rows(numbers, numbers, np.empty((0, DIMENSIONS), np.float32))


@dataclass(frozen=True)
class Hit:
    """A person's best face by its number; similarity: the cosine, rounded to float32."""

    face: int
    similarity: float


class FaceIndex:
    """Faces with their persons, searched exactly. Safe for many searching and changing threads.

    threads: OpenMP threads of one search. revision: the caller's note of what has been applied.
    """

    def __init__(self, *, threads: int = 1, revision: int = 0, room: int = 0) -> None:
        self.revision = revision
        self._threads = threads
        self._gate = _Gate()
        self._changing = threading.Lock()
        self._row_of: dict[int, int] = {}
        self._matrix_RD = np.zeros((room, DIMENSIONS), np.float32)
        self._faces = np.empty(room, np.int64)
        self._persons = np.empty(room, np.int64)
        _let_faiss_use_blas()

    def __len__(self) -> int:
        return len(self._row_of)

    def apply(self, added: Rows, removed: Sequence[int], *, revision: int | None = None) -> None:
        """Takes faces in and out at once. Known faces are not added, unknown ones not removed.

        removed: face numbers; their embeddings are zeroed in memory.
        """
        with self._changing:
            new = [i for i, face in enumerate(added.faces.tolist()) if face not in self._row_of]
            self._make_room(len(self) + len(new))
            with self._gate.alone():
                for face in removed:
                    self._remove(face)
                self._append(added, new)
                if revision is not None:
                    self.revision = revision

    def search(self, embeddings_ND: NDArray[np.float32], top_k: int) -> list[list[Hit]]:
        """For each query the best faces of the top_k best persons, most similar first.

        Exact: rows are fetched until no row left unfetched can change the answer. Of equal
        similarities the lower face number is first. An answer does not depend on the other queries.
        """
        with self._gate.shared():
            answers: list[list[Hit]] = [[] for _ in embeddings_ND]
            waiting = list(range(len(answers))) if len(self) else []
            fetch = FIRST_FETCH
            while waiting:
                scores_NK, rows_NK = self._fetch(embeddings_ND[waiting], fetch)
                found = [
                    self._best(embeddings_ND[query], scores_K, rows_K, top_k)
                    for query, scores_K, rows_K in zip(waiting, scores_NK, rows_NK, strict=True)
                ]
                for query, hits in zip(waiting, found, strict=True):
                    answers[query] = hits or []
                waiting = [q for q, hits in zip(waiting, found, strict=True) if hits is None]
                fetch *= 8
            return answers

    def _fetch(
        self, embeddings_ND: NDArray[np.float32], fetch: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Scores and rows, (N, K) each, of the K nearest rows, nearest first."""
        faiss.omp_set_num_threads(self._threads)  # holds for the calling thread alone
        rows = self._matrix_RD[: len(self)]
        scores_NK, rows_NK = faiss.knn(
            embeddings_ND, rows, min(fetch, len(self)), faiss.METRIC_INNER_PRODUCT
        )
        return scores_NK, rows_NK

    def _best(
        self,
        embedding_D: NDArray[np.float32],
        scores_K: NDArray[np.float32],
        rows_K: NDArray[np.int64],
        top_k: int,
    ) -> list[Hit] | None:
        """The top_k persons' best faces; None when an unfetched row might belong among them."""
        _, firsts = np.unique(self._persons[rows_K], return_index=True)
        complete = len(rows_K) == len(self)
        if len(firsts) < top_k and not complete:
            return None
        last_first = np.sort(firsts)[min(top_k, len(firsts)) - 1]
        worth = scores_K >= scores_K[last_first] - 2 * ROUNDING
        if worth[-1] and not complete:
            return None
        return self._ranked(embedding_D, rows_K[worth], top_k)

    def _ranked(
        self, embedding_D: NDArray[np.float32], rows_K: NDArray[np.int64], top_k: int
    ) -> list[Hit]:
        """The best faces of the top_k persons among these rows, by one way of summing for all."""
        products_KD = self._matrix_RD[rows_K].astype(np.float64) * embedding_D
        cosines_K = np.clip(products_KD.sum(axis=1), -1, 1).astype(np.float32)
        order = np.lexsort((self._faces[rows_K], -cosines_K))
        _, firsts = np.unique(self._persons[rows_K[order]], return_index=True)
        best = order[np.sort(firsts)[:top_k]]
        faces = self._faces[rows_K[best]].tolist()
        return [Hit(f, s) for f, s in zip(faces, cosines_K[best].tolist(), strict=True)]

    def _make_room(self, rows: int) -> None:
        """Has arrays of at least so many rows; searches go on in the old ones meanwhile."""
        if rows <= len(self._faces):
            return
        room = max(rows, 2 * len(self._faces), 64)
        used = slice(0, len(self))
        matrix_RD = np.zeros((room, DIMENSIONS), np.float32)
        matrix_RD[used] = self._matrix_RD[used]
        faces, persons = np.empty(room, np.int64), np.empty(room, np.int64)
        faces[used], persons[used] = self._faces[used], self._persons[used]
        with self._gate.alone():
            old_RD, self._matrix_RD = self._matrix_RD, matrix_RD
            self._faces, self._persons = faces, persons
        old_RD[:] = 0  # no embedding stays behind in freed memory

    def _append(self, added: Rows, which: list[int]) -> None:
        rows = slice(len(self), len(self) + len(which))
        self._matrix_RD[rows] = added.embeddings[which]
        self._faces[rows] = added.faces[which]
        self._persons[rows] = added.persons[which]
        self._row_of.update(
            zip(added.faces[which].tolist(), range(rows.start, rows.stop), strict=True)
        )

    def _remove(self, face: int) -> None:
        """The last row moves into the row of the face that goes; its own is zeroed."""
        last = len(self) - 1
        row = self._row_of.pop(face, None)
        if row is None:
            return
        if row != last:
            self._matrix_RD[row] = self._matrix_RD[last]
            self._faces[row], self._persons[row] = self._faces[last], self._persons[last]
            self._row_of[int(self._faces[row])] = row
        self._matrix_RD[last] = 0


class _Gate:
    """Many may share, or one is alone; who waits to be alone goes before who waits to share."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._sharing = 0
        self._alone = False
        self._waiting_to_be_alone = 0

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._alone and not self._waiting_to_be_alone)
            self._sharing += 1
        try:
            yield
        finally:
            with self._changed:
                self._sharing -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._waiting_to_be_alone += 1
            self._changed.wait_for(lambda: not self._alone and not self._sharing)
            self._waiting_to_be_alone -= 1
            self._alone = True
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()


def _let_faiss_use_blas() -> None:
    """Has three or more queries at once go through a matrix product, ten times as fast for fifty.

    FAISS decides by the number of queries (20 by default), since 1.15 by queries times dimensions
    (128,000 by default, made for many threads; facebookresearch/faiss pull requests 5022, 5109).
    """
    by_queries = faiss.cvar.distance_compute_blas_threshold < DIMENSIONS
    faiss.cvar.distance_compute_blas_threshold = 3 if by_queries else 3 * DIMENSIONS
