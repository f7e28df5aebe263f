"""Verification figures over all pairs of a set of embeddings (ISO/IEC 19795-1: FMR, FNMR).

A pair is accepted where its similarity is strictly above the threshold. The similarities of all
pairs are held at once: 4 N^2 bytes and more."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.evaluate.bootstrap import draws, interval, widened


@dataclass(frozen=True)
class Verification:
    """TAR at two FARs (1 - FNMR at FMR 1e-2 and 1e-3) and the equal error rate, all in [0, 1].

    A TAR is None where `supported` says no. tar_without_false_match: at the highest non-mated
    similarity, above which no pair of the set is falsely matched."""

    tar_at_far_1e2: float | None
    tar_at_far_1e3: float | None
    tar_without_false_match: float
    equal_error_rate: float


@dataclass(frozen=True)
class OperatingPoint:
    """FNMR at the lowest similarity whose FMR is at most `fmr`, with 95 % over people.

    In each round of the bootstrap the threshold is taken anew. fnmr and its interval are NaN where
    there are too few non-mated pairs for the rate (`supported`). pairs_of_people: how many distinct
    pairs were falsely matched there; a rate of fewer than 30 should not be leant on."""

    fmr: float
    similarity: float
    fnmr: float
    fnmr_low: float
    fnmr_high: float
    pairs_of_people: int


def pair_scores(
    embeddings_ND: NDArray[np.float32], labels_N: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Similarities of all mated and all non-mated pairs, each pair once."""
    similarity = embeddings_ND @ embeddings_ND.T
    upper = np.triu(np.ones(similarity.shape, bool), 1)
    same = labels_N[:, None] == labels_N[None, :]
    return similarity[upper & same], similarity[upper & ~same]


def supported(far: float, non_mated: int) -> bool:
    """True if so many non-mated pairs can show the rate: one false match among them is no more.

    Of fewer, the threshold is the highest of their similarities whatever the rate, and what is
    found there says nothing of it."""
    return far * non_mated >= 1 - 1e-9


def non_mated_pairs(labels_N: NDArray[np.int64]) -> int:
    """How many pairs of crops are of two people."""
    each = np.unique(labels_N, return_counts=True)[1]
    return int((len(labels_N) ** 2 - (each**2).sum()) // 2)


def require_pairs(labels_N: NDArray[np.int64], of: str = "the set") -> None:
    """Raises ValueError for people of whom no mated or no non-mated pair can be made, and for a
    crop without a person, which cannot be told to be anybody's. of: what errors call them."""
    if unnamed := int((labels_N < 0).sum()):
        raise ValueError(f"{of}: verification needs a person of every crop; {unnamed} have none")
    crops_K = np.unique(labels_N, return_counts=True)[1]
    if len(crops_K) < 2 or crops_K.max() < 2:
        raise ValueError(
            f"{of}: verification needs two people, one of them with two crops; here are "
            f"{len(labels_N)} crops of {len(crops_K)} people"
        )


def verification(embeddings_ND: NDArray[np.float32], labels_N: NDArray[np.int64]) -> Verification:
    """The figures over all pairs. Raises as require_pairs does."""
    require_pairs(labels_N)
    mated, non_mated = pair_scores(embeddings_ND, labels_N)
    non_mated = np.sort(non_mated)
    tars: list[float | None] = []
    for far in (1e-2, 1e-3):
        threshold = non_mated[-1 - int(far * len(non_mated))]
        enough = supported(far, len(non_mated))
        tars.append(float((mated > threshold).mean()) if enough else None)
    strictest = float((mated > non_mated[-1]).mean())
    grid = np.quantile(mated, np.linspace(0, 1, 2001))
    false_match = 1 - np.searchsorted(non_mated, grid) / len(non_mated)
    false_non_match = np.searchsorted(np.sort(mated), grid) / len(mated)
    crossing = np.abs(false_match - false_non_match).argmin()
    return Verification(
        *tars, strictest, float((false_match[crossing] + false_non_match[crossing]) / 2)
    )


def error_curve(
    mated: NDArray[np.floating], non_mated: NDArray[np.floating], points: int = 400
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(fmr_G, fnmr_G) at thresholds where FMR is spread evenly on a logarithmic scale; rising FMR.

    From the highest non-mated similarity, which nothing false exceeds, to the lowest."""
    falling = np.sort(non_mated)[::-1]
    places = np.unique(np.geomspace(1, len(falling), points).astype(np.int64) - 1)
    thresholds = falling[places]
    fmr = 1 - np.searchsorted(falling[::-1], thresholds, side="right") / len(falling)
    fnmr = np.searchsorted(np.sort(mated), thresholds, side="right") / len(mated)
    return fmr, fnmr


def fnmr_at_fmr(
    embeddings_ND: NDArray[np.float32],
    labels_N: NDArray[np.int64],
    targets: Sequence[float] = (1e-2, 1e-3, 1e-4),
    *,
    rounds: int = 400,
    seed: int = 0,
) -> list[OperatingPoint]:
    """An operating point a target FMR, over all pairs of crops.

    labels_N: each crop's person, in [0, people). In a round of the bootstrap a pair counts by the
    product of its people's draws, a mated pair by its person's. Raises ValueError where the set has
    no mated or no non-mated pair."""
    i, j = np.triu_indices(len(labels_N), 1)
    scores, first, second = (embeddings_ND @ embeddings_ND.T)[i, j], labels_N[i], labels_N[j]
    same = first == second
    if same.all() or not same.any():
        raise ValueError("FNMR at FMR needs pairs of one person and pairs of two")
    weights_RP = draws(int(labels_N.max()) + 1, rounds=rounds, seed=seed)
    ascending = np.argsort(scores[same])
    mated, person = scores[same][ascending], first[same][ascending]
    other, first, second = scores[~same], first[~same], second[~same]
    # FMR's thresholds lie in the highest similarities alone, which spares most of the work.
    kept = min(len(other), max(200_000, int(5 * max(targets) * len(other))))
    highest = np.argpartition(other, -kept)[-kept:]
    highest = highest[np.argsort(other[highest])[::-1]]
    top, first, second = other[highest], first[highest], second[highest]
    totals_R = _non_mated_weight(weights_RP, np.bincount(labels_N))
    rates, at = np.empty((len(targets), rounds + 1)), np.empty(len(targets))
    several = int((np.bincount(labels_N) >= 2).sum())
    for r, weights in enumerate(weights_RP):
        false = np.cumsum(weights[first] * weights[second])
        missed = np.concatenate([[0], np.cumsum(weights[person])])
        for t, target in enumerate(targets):
            threshold = top[_first_above(false, target * totals_R[r])]
            at[t] = threshold if r == 0 else at[t]
            below = missed[np.searchsorted(mated, threshold, side="right")]
            rates[t, r] = below / missed[-1] if missed[-1] else np.nan
    found = []
    for t, target in enumerate(targets):
        matched = top > at[t]
        people = len(set(zip(first[matched].tolist(), second[matched].tolist(), strict=True)))
        fnmr, (low, high) = float(rates[t, 0]), interval(rates[t])
        if low == high:  # no draw of the same people can show what others would do
            low, high = widened(fnmr, several)
        if not supported(target, len(other)):
            fnmr = low = high = np.nan
        found.append(OperatingPoint(target, float(at[t]), fnmr, low, high, people))
    return found


def threshold_at(
    scores_K: NDArray[np.floating], weights_K: NDArray[np.float64], rate: float
) -> float:
    """The lowest of the scores that at most `rate` of the weight lies strictly above."""
    falling = np.argsort(scores_K)[::-1]
    above = np.cumsum(weights_K[falling])
    return float(scores_K[falling][_first_above(above, rate * above[-1])])


def _first_above(rising_K: NDArray[np.float64], limit: float) -> int:
    return min(int(np.searchsorted(rising_K, limit, side="right")), len(rising_K) - 1)


def _non_mated_weight(
    weights_RP: NDArray[np.float64], crops_P: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(R,): the weight of all pairs of crops of two people."""
    crops_RP = weights_RP * crops_P
    return (crops_RP.sum(1) ** 2 - (crops_RP**2).sum(1)) / 2
