"""Temperatures: what logits are divided by, so that a confidence means what it says; and how far a
rare attribute is met halfway.

Guo et al. 2017 (arXiv:1706.04599), section 4.2: the temperature of the least cross-entropy on faces
that nothing was learnt from. It is above zero, so no answer changes. N faces, K classes, A
attributes."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.evaluate.reliability import calibration_error

LEAST, MOST = 0.05, 20.0  # where logits that are all right, or all wrong, would go on for ever
HALVINGS = 60
SHARES = tuple(i / 20 for i in range(21))
SPENT = 0.005  # of mean accuracy, for balanced accuracy
CALIBRATED = 0.03  # expected calibration error, at most


def softmax_temperature(logits_NK: NDArray[np.floating], labels_N: NDArray[np.int64]) -> float:
    """The temperature T of softmax(logits / T), in [LEAST, MOST].

    labels_N: in [0, K). Raises ValueError for no faces, labels outside and logits not finite."""
    logits = _finite(logits_NK, labels_N.shape)
    if labels_N.min() < 0 or labels_N.max() >= logits.shape[1]:
        raise ValueError(f"a label is outside [0, {logits.shape[1]})")
    of_label_N = np.take_along_axis(logits, labels_N[:, None], 1)[:, 0]

    def slope(inverse: float) -> float:
        powers = np.exp(inverse * (logits - logits.max(1, keepdims=True)))
        expected_N = (powers * logits).sum(1) / powers.sum(1)
        return float((expected_N - of_label_N).mean())

    return _least_cross_entropy(slope)


def sigmoid_temperature(logits_NA: NDArray[np.floating], present_NA: NDArray[np.bool_]) -> float:
    """The temperature T of sigmoid(logits / T), one for all, in [LEAST, MOST].

    Raises ValueError for no faces, another form of labels and logits not finite."""
    logits = _finite(logits_NA, present_NA.shape)

    def slope(inverse: float) -> float:
        return float(((_sigmoid(inverse * logits) - present_NA) * logits).mean())

    return _least_cross_entropy(slope)


@dataclass(frozen=True)
class Fit:
    """temperature: one for all attributes or a list of A. cross_entropy: what one for all and what
    one each gave on the half of the faces that they were not fitted to."""

    temperature: float | list[float]
    cross_entropy: dict[str, float]


def sigmoid_temperatures(
    logits_NA: NDArray[np.floating], present_NA: NDArray[np.bool_], *, seed: int = 0
) -> Fit:
    """One temperature for all attributes or one each, whichever is better on faces that it was not
    fitted to: each half of the faces, drawn by the seed, is tried with what the other half gives.

    What is better is then fitted to all faces. Raises ValueError as sigmoid_temperature does, and
    for fewer than two faces."""
    kinds: dict[str, Callable[..., float | NDArray[np.float64]]] = {
        "one_for_all": sigmoid_temperature,
        "one_each": _one_each,
    }
    halves = np.array_split(np.random.default_rng(seed).permutation(len(present_NA)), 2)
    tried = {
        name: np.mean(
            [
                cross_entropy(logits_NA[b] / fit(logits_NA[a], present_NA[a]), present_NA[b])
                for a, b in (halves, halves[::-1])
            ]
        ).item()
        for name, fit in kinds.items()
    }
    found = kinds[min(tried, key=tried.__getitem__)](logits_NA, present_NA)
    return Fit(found if isinstance(found, float) else found.tolist(), tried)


@dataclass(frozen=True)
class Adjustment:
    """share: in [0, 1], of the way to scores as if each attribute were as often there as not.
    shift_A: what is taken off calibrated logits for it, share times the log odds of each."""

    share: float
    shift_A: NDArray[np.float64]


def adjusted(
    logits_NA: NDArray[np.floating], present_NA: NDArray[np.bool_], *, spent: float = SPENT
) -> Adjustment:
    """The largest share up to which mean accuracy falls by at most `spent`, and the expected
    calibration error is at most CALIBRATED.

    Of calibrated logits sigmoid tells how likely an attribute is among these faces, and a rare one,
    never likely, is hardly ever answered: accurate, and of little use. Less of its log odds (Menon
    et al. 2021, arXiv:2007.07314, equation 9, where the share is tau) finds more of the rare for
    little accuracy. Odds are those of these faces, one more counted with and one without."""
    frequency_A = (present_NA.sum(0) + 1) / (len(present_NA) + 2)
    odds_A = np.log(frequency_A / (1 - frequency_A))
    best, least = 0.0, ((logits_NA >= 0) == present_NA).mean() - spent
    for share in SHARES[1:]:
        shifted_NA = logits_NA - share * odds_A
        right_NA = (shifted_NA >= 0) == present_NA
        error = calibration_error(_sigmoid(np.abs(shifted_NA)).ravel(), right_NA.ravel())
        if right_NA.mean() < least or error > CALIBRATED:
            break
        best = share
    return Adjustment(best, best * odds_A)


def cross_entropy(logits_NA: NDArray[np.floating], present_NA: NDArray[np.bool_]) -> float:
    """The mean over faces and attributes of -log of the probability given to what is so."""
    return float(np.logaddexp(0, np.where(present_NA, -logits_NA, logits_NA)).mean())


def _one_each(
    logits_NA: NDArray[np.floating], present_NA: NDArray[np.bool_]
) -> NDArray[np.float64]:
    columns = zip(logits_NA.T, present_NA.T, strict=True)
    return np.array([sigmoid_temperature(logits, present) for logits, present in columns])


def _least_cross_entropy(slope: Callable[[float], float]) -> float:
    """T where the cross-entropy's derivative by 1 / T, which rises with 1 / T, passes zero."""
    low, high = np.log(LEAST), np.log(MOST)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(float(np.exp(-middle))) < 0 else (middle, high)
    return float(np.exp((low + high) / 2))


def _finite(logits: NDArray[np.floating], labelled: tuple[int, ...]) -> NDArray[np.float64]:
    if not len(logits) or logits.shape[: len(labelled)] != labelled:
        raise ValueError(f"logits are {logits.shape} and labels {labelled}")
    if not np.isfinite(logits).all():
        raise ValueError("a logit is not a finite number")
    return logits.astype(np.float64)


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(-np.logaddexp(0, -x))
