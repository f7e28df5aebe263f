"""Which photographs may lie in the wrong person's folder: what their similarities say against it.

The thresholds come from elsewhere, as the model's own calibration: people who are wrongly named
would move those that are measured on them.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

UNLIKE_FMR: Final = 1e-1  # less like their own than one stranger in ten is like another
ALIKE_FMR: Final = 1e-4  # more like a stranger than one pair of strangers in ten thousand


@dataclass(frozen=True)
class Doubts:
    """Rows of the embeddings, the most doubtful first.

    unlike: (row, its highest similarity to another of its person). alike: (row, row of another
    person, their similarity), the most similar of each two people.
    """

    unlike: list[tuple[int, float]]
    alike: list[tuple[int, int, float]]


def find_doubts(
    embeddings_ND: NDArray[np.float32],
    labels_N: NDArray[np.int64],
    *,
    unlike_below: float,
    alike_from: float,
) -> Doubts:
    """What is less like its own person than unlike_below, or as like another's as alike_from.

    embeddings_ND: unit length. labels_N: each row's person. Who has one row is not unlike it.
    """
    found = Doubts([], [])
    for person in np.unique(labels_N):
        own = np.flatnonzero(labels_N == person)
        found.unlike.extend(_unlike(embeddings_ND[own], own, unlike_below))
        later = np.flatnonzero(labels_N > person)
        similarity = embeddings_ND[own] @ embeddings_ND[later].T
        found.alike.extend(_alike(similarity, own, later, labels_N[later], alike_from))
    found.unlike.sort(key=lambda doubt: doubt[-1])
    found.alike.sort(key=lambda doubt: -doubt[-1])
    return found


def _unlike(
    rows_ND: NDArray[np.float32], own: NDArray[np.int64], below: float
) -> list[tuple[int, float]]:
    if len(own) < 2:
        return []
    similarity = rows_ND @ rows_ND.T
    np.fill_diagonal(similarity, -np.inf)
    best = similarity.max(axis=1)
    return [(int(own[k]), float(best[k])) for k in np.flatnonzero(best < below)]


def _alike(
    similarity: NDArray[np.float32],
    own: NDArray[np.int64],
    later: NDArray[np.int64],
    whose: NDArray[np.int64],
    least: float,
) -> list[tuple[int, int, float]]:
    best: dict[int, tuple[int, int, float]] = {}
    nearest = similarity.argmax(axis=0)
    highest = similarity.max(axis=0)
    for j in np.flatnonzero(highest >= least):
        found, other = float(highest[j]), int(whose[j])
        if other not in best or found > best[other][-1]:
            best[other] = (int(own[nearest[j]]), int(later[j]), found)
    return list(best.values())
