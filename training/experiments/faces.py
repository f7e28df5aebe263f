"""Expressions and attributes over faces, with every figure's bootstrap rounds.

Two networks measured on the same faces meet the same draws, so that rounds can be subtracted one by
one. R rounds, the first being everyone once (bootstrap.py); N faces; K classes; A attributes."""

import numpy as np
from numpy.typing import NDArray

from training.evaluate.bootstrap import ROUNDS, draws, share
from training.evaluate.expression import macro_f1


def expression_rounds(
    answers_N: NDArray[np.int64],
    labels_N: NDArray[np.int64],
    classes: int,
    *,
    rounds: int = ROUNDS,
) -> dict[str, NDArray[np.float64]]:
    """{"accuracy", "macro_f1": (R,)}, in [0, 1]; answers_N, labels_N: in [0, K)."""
    weights_RN = draws(len(labels_N), rounds=rounds)
    cells_N = labels_N * classes + answers_N
    counts = [np.bincount(cells_N, weights_N, classes**2) for weights_N in weights_RN]
    return {
        "accuracy": share(answers_N == labels_N, weights_RN),
        "macro_f1": macro_f1(np.array(counts).reshape(-1, classes, classes)),
    }


def attribute_rounds(
    found_NA: NDArray[np.bool_], present_NA: NDArray[np.bool_], *, rounds: int = ROUNDS
) -> dict[str, NDArray[np.float64]]:
    """{"mean_accuracy", "mean_balanced_accuracy": (R,)}, means over attributes, in [0, 1].

    Balanced accuracy is the mean of the share of the present and of the absent that are found; an
    attribute that all faces of a round have, or none, is left out of that round's mean."""
    weights_RN = draws(len(present_NA), rounds=rounds)
    right_NA = found_NA == present_NA
    with np.errstate(invalid="ignore"):
        balanced_RA = sum(
            (weights_RN @ (right_NA & among_NA)) / (weights_RN @ among_NA)
            for among_NA in (present_NA, ~present_NA)
        )
    return {
        "mean_accuracy": weights_RN @ right_NA.mean(1) / weights_RN.sum(1),
        "mean_balanced_accuracy": np.nanmean(balanced_RA / 2, axis=1),
    }
