"""Verification and identification over people, with every figure's bootstrap rounds.

Two networks measured on the same people meet the same draws, so that rounds can be subtracted one
by one. R rounds, the first being everyone once (bootstrap.py); P people; G thresholds."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.evaluate.bootstrap import ROUNDS, draws, share
from training.evaluate.identification import best_of_faces, enrolled_rows, search

MEASURES = ("equal_error_rate", "tar_at_far_1e3", "rank_1")
THRESHOLDS = 160


def figures(
    embeddings_ND: NDArray[np.float32],
    labels_N: NDArray[np.int64],
    *,
    faces: int = 1,
    rounds: int = ROUNDS,
) -> dict[str, NDArray[np.float64]]:
    """{measure of MEASURES: (R,)} over all pairs of crops, and over searches among all people.

    labels_N: in [0, P). In a round a pair counts by the product of its people's draws, a mated pair
    by its person's, as in verification.fnmr_at_fmr; a probe by its person's. FMR is known at 160
    thresholds, evenly spread in log FMR, and read off between them. A round that drew one person
    alone is NaN. faces: of a person that are enrolled. Raises ValueError where the set has no mated
    or no non-mated pair."""
    weights_RP = draws(int(labels_N.max()) + 1, rounds=rounds)
    curves = _curves(embeddings_ND, labels_N, weights_RP)
    rank_1 = _rank_1(embeddings_ND, labels_N, weights_RP, faces)
    return dict(zip(MEASURES, (curves.equal_error_rate(), curves.tar(1e-3), rank_1), strict=True))


@dataclass(frozen=True)
class _Curves:
    """fmr_RG and fnmr_RG at falling thresholds: FMR rises, FNMR falls."""

    fmr_RG: NDArray[np.float64]
    fnmr_RG: NDArray[np.float64]

    def tar(self, far: float) -> NDArray[np.float64]:
        """(R,): 1 - FNMR where FMR is far, between two thresholds by log FMR."""
        log_RG = np.log(np.maximum(self.fmr_RG, 1e-12))
        rows = zip(log_RG, self.fnmr_RG, strict=True)
        return np.array([1 - np.interp(np.log(far), fmr, fnmr) for fmr, fnmr in rows])

    def equal_error_rate(self) -> NDArray[np.float64]:
        """(R,): where the two curves cross, straight between two thresholds."""
        rows = zip(self.fmr_RG, self.fnmr_RG, strict=True)
        return np.array([np.interp(0, fmr - fnmr, fmr) for fmr, fnmr in rows])


def _curves(
    embeddings_ND: NDArray[np.float32], labels_N: NDArray[np.int64], weights_RP: NDArray[np.float64]
) -> _Curves:
    i, j = np.triu_indices(len(labels_N), 1)
    scores, first, second = (embeddings_ND @ embeddings_ND.T)[i, j], labels_N[i], labels_N[j]
    same = first == second
    if same.all() or not same.any():
        raise ValueError("verification needs pairs of one person and pairs of two")
    falling = np.sort(scores[~same])[::-1]
    ranks = np.geomspace(1, len(falling), THRESHOLDS).astype(np.int64) - 1
    rising_G = np.unique(falling[ranks])
    people = weights_RP.shape[1]
    cells = (first * people + second)[~same]
    non_mated_GPP = _above(scores[~same], cells, people**2, rising_G).reshape(-1, people, people)
    mated_GP = _above(scores[same], first[same], people, rising_G)
    # A round's weight of all pairs of two people: sum over p, q of w_p w_q n_pq.
    weigh = lambda PP: ((weights_RP @ PP) * weights_RP).sum(1)  # noqa: E731
    non_mated_R = weigh(np.bincount(cells, minlength=people**2).reshape(people, people))
    mated_R = weights_RP @ np.bincount(first[same], minlength=people)
    with np.errstate(invalid="ignore"):
        fmr_GR = np.stack([weigh(PP) for PP in non_mated_GPP]) / non_mated_R
        fnmr_GR = 1 - (mated_GP @ weights_RP.T) / mated_R
    fnmr_GR[:, non_mated_R == 0] = np.nan
    return _Curves(fmr_GR[::-1].T, fnmr_GR[::-1].T)


def _above(
    scores_K: NDArray[np.float32],
    cells_K: NDArray[np.int64],
    count: int,
    rising_G: NDArray[np.float32],
) -> NDArray[np.int64]:
    """(G, count): how many scores of each cell lie strictly above each threshold."""
    places_K = np.searchsorted(rising_G, scores_K)  # how many thresholds lie below the score
    each = np.bincount(places_K * count + cells_K, minlength=(len(rising_G) + 1) * count)
    return each.reshape(-1, count)[:0:-1].cumsum(0)[::-1]


def _rank_1(
    embeddings_ND: NDArray[np.float32],
    labels_N: NDArray[np.int64],
    weights_RP: NDArray[np.float64],
    faces: int,
) -> NDArray[np.float64]:
    people, rows = weights_RP.shape[1], enrolled_rows(labels_N, faces)
    probe_Q = labels_N[~rows]
    best = best_of_faces(embeddings_ND[~rows], embeddings_ND[rows], labels_N[rows], people)
    found = search(best, probe_Q, people)
    return share(found.rank_Q == 1, weights_RP[:, probe_Q])
