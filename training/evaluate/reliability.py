"""Whether a confidence means what it says: of the answers given with 0.8, are 80 % right?"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 15


def calibration_error(
    confidence_N: NDArray[np.floating], right_N: NDArray[np.bool_], *, bins: int = BINS
) -> float:
    """The expected calibration error (Guo et al. 2017, arXiv:1706.04599, equation 3), in [0, 1].

    The mean distance between confidence and accuracy over `bins` equal parts of [0, 1], weighted by
    how many answers fall into each."""
    count, confidence, accuracy = _binned(confidence_N, right_N, bins)
    return float((count * np.abs(accuracy - confidence)).sum() / count.sum())


def reliability(
    confidence_N: NDArray[np.floating], right_N: NDArray[np.bool_], *, bins: int = BINS
) -> list[dict[str, Any]]:
    """The diagram's points: for each part of [0, 1] that holds answers their count, mean confidence
    and accuracy."""
    return [
        {"count": int(n), "confidence": float(c), "accuracy": float(a)}
        for n, c, a in zip(*_binned(confidence_N, right_N, bins), strict=True)
        if n
    ]


def _binned(
    confidence_N: NDArray[np.floating], right_N: NDArray[np.bool_], bins: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """count, mean confidence and accuracy of each bin; a bin is open below and closed above."""
    if not len(confidence_N):
        raise ValueError("no answers to measure the calibration of")
    place = np.clip(np.ceil(confidence_N.astype(np.float64) * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    each = np.maximum(count, 1)
    confidence = np.bincount(place, confidence_N, bins) / each
    return count, confidence, np.bincount(place, right_N, bins) / each
