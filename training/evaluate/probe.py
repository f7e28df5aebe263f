"""A linear probe: what a class is told by, out of embeddings that were made for something else.

Multinomial logistic regression with an L2 penalty on the features' whitened leading directions, by
Nesterov's accelerated gradient from zero: nothing is drawn at random but the folds of the
cross-validation, which are seeded."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
L2: Final = 0.01
STEPS: Final = 60
DIRECTIONS: Final = 256  # of the features that vary most
SHRINK: Final = 0.1  # of the mean variance, added to each direction's before whitening
FOLDS: Final = 5


def whitened(known_ND: NDArray[np.float32], asked_MD: NDArray[np.float32]) -> tuple[Floats, Floats]:
    """Both sets in the leading directions of the first, each of unit variance there: (N, E) and
    (M, E)."""
    mean_D = known_ND.mean(axis=0, dtype=np.float64)
    variance_D, axes_DD = np.linalg.eigh(np.cov((known_ND - mean_D).T))
    scaled_DD = axes_DD / np.sqrt(variance_D + SHRINK * variance_D.mean())
    whiten_DE = scaled_DD[:, -DIRECTIONS:]
    return (known_ND - mean_D) @ whiten_DE, (asked_MD - mean_D) @ whiten_DE


def fit_probe(rows_NE: Floats, labels_N: NDArray[np.int64], classes: int) -> Floats:
    """The weights (E + 1, classes), the last row for the bias, that tell the rows' classes, in
    [0, classes)."""
    rows = _with_ones(rows_NE)
    wanted_NC = np.eye(classes)[labels_N]
    penalty_E1 = np.full((rows.shape[1], 1), L2)
    penalty_E1[-1] = 0  # none on the bias
    # The softmax's curvature is at most a half.
    step = 1 / (np.linalg.eigvalsh(rows.T @ rows / len(rows))[-1] / 2 + L2)
    weights_EC = ahead_EC = np.zeros((rows.shape[1], classes))
    momentum = 1.0
    for _ in range(STEPS):
        error_NC = _softmax(rows @ ahead_EC) - wanted_NC
        stepped_EC = ahead_EC - step * (rows.T @ error_NC / len(rows) + penalty_E1 * ahead_EC)
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead_EC = stepped_EC + (momentum - 1) / following * (stepped_EC - weights_EC)
        weights_EC, momentum = stepped_EC, following
    return weights_EC


def probabilities(weights_EC: Floats, rows_NE: Floats) -> Floats:
    """Of each class for each row: (N, C), rows sum to one."""
    return _softmax(_with_ones(rows_NE) @ weights_EC)


def cross_validate(
    rows_NE: Floats, labels_N: NDArray[np.int64], classes: int, *, seed: int = 0
) -> Floats:
    """Each row's probabilities (N, C) by a probe of the other folds' rows."""
    fold_N = np.random.default_rng(seed).permutation(len(labels_N)) % FOLDS
    found_NC = np.empty((len(labels_N), classes))
    for fold in range(FOLDS):
        held = fold_N == fold
        weights_EC = fit_probe(rows_NE[~held], labels_N[~held], classes)
        found_NC[held] = probabilities(weights_EC, rows_NE[held])
    return found_NC


def least_sure(
    probability_N: Floats, right_N: NDArray[np.bool_], precision: float
) -> tuple[float, float] | None:
    """The lowest probability from which on the share `precision` of the rows is right, and that
    share; None where there is none."""
    order = np.argsort(-probability_N, kind="stable")
    share_N = right_N[order].cumsum() / np.arange(1, len(order) + 1)
    enough = np.flatnonzero(share_N >= precision)
    if not len(enough):
        return None
    last = int(enough[-1])
    return float(probability_N[order[last]]), float(share_N[last])


def _softmax(scores_NC: Floats) -> Floats:
    powers_NC = np.exp(scores_NC - scores_NC.max(axis=1, keepdims=True))
    shares: Floats = powers_NC / powers_NC.sum(axis=1, keepdims=True)
    return shares


def _with_ones(rows_ND: Floats) -> Floats:
    return np.concatenate([rows_ND, np.ones((len(rows_ND), 1))], axis=1)
