"""Verification figures over all pairs of a set of embeddings (ISO/IEC 19795-1: FMR, FNMR)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Verification:
    """TAR at two FARs (1 - FNMR at FMR 1e-2 and 1e-3) and the equal error rate, all in [0, 1]."""

    tar_at_far_1e2: float
    tar_at_far_1e3: float
    equal_error_rate: float


def pair_scores(
    embeddings_ND: NDArray[np.float32], labels_N: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Similarities of all mated and all non-mated pairs, each pair once."""
    similarity = embeddings_ND @ embeddings_ND.T
    upper = np.triu(np.ones(similarity.shape, bool), 1)
    same = labels_N[:, None] == labels_N[None, :]
    return similarity[upper & same], similarity[upper & ~same]


def verification(embeddings_ND: NDArray[np.float32], labels_N: NDArray[np.int64]) -> Verification:
    """The figures over all pairs; a mated pair is accepted strictly above the threshold."""
    mated, non_mated = pair_scores(embeddings_ND, labels_N)
    non_mated = np.sort(non_mated)
    tars = []
    for far in (1e-2, 1e-3):
        threshold = non_mated[-1 - int(far * len(non_mated))]
        tars.append(float((mated > threshold).mean()))
    grid = np.quantile(mated, np.linspace(0, 1, 2001))
    false_match = 1 - np.searchsorted(non_mated, grid) / len(non_mated)
    false_non_match = np.searchsorted(np.sort(mated), grid) / len(mated)
    crossing = np.abs(false_match - false_non_match).argmin()
    return Verification(*tars, float((false_match[crossing] + false_non_match[crossing]) / 2))
