"""Similarity to decision: thresholds by the error rate that they promise, with its interval.

A calibration is measured on people whom no training has seen (training.evaluate.calibration): for a
grid of similarities the false match rate (FMR) and false non-match rate (FNMR) of ISO/IEC 19795-1,
with 95 % intervals from a bootstrap over people. Between two grid points the logarithm of the rate
is taken as linear. A rate below `smallest_fmr` was seen in too few pairs of people to be promised.

An open-set search compares a probe with every enrolled face. If F faces are enrolled and the
probe's person is not, FPIR <= 1 - (1 - FMR)^F; equality would need independent comparisons, and
both the shared probe and the several faces of one person make them depend positively. The bound is
what is used: a threshold by target_fpir errs on the careful side."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Decision = Literal["match", "no_match", "uncertain"]
By = Literal["threshold", "target_fmr", "target_fpir"]
FLOOR = 1e-12  # where the logarithm of a rate of zero is taken


@dataclass(frozen=True)
class Calibration:
    """Measured error rates. similarity_G: float64 (G,), rising; the rates belong to "accept at or
    above".

    fmr_G and its bounds fall with the similarity, fnmr_G rises. smallest_fmr: the lowest FMR that
    the set supports, at least 30 distinct pairs of people having been falsely matched there (the
    rule of 30, applied to people, since comparisons of the same two people depend on each other).
    """

    people: int
    crops: int
    smallest_fmr: float
    similarity_G: NDArray[np.float64]
    fmr_G: NDArray[np.float64]
    fmr_low_G: NDArray[np.float64]
    fmr_high_G: NDArray[np.float64]
    fnmr_G: NDArray[np.float64]
    fnmr_low_G: NDArray[np.float64]
    fnmr_high_G: NDArray[np.float64]

    @classmethod
    def from_manifest(cls, block: dict[str, Any]) -> "Calibration":
        """The manifest's `calibration` block. Raises ValueError where it is not one."""
        try:
            columns = {
                f"{name}_G": np.array(block["curve"][name], np.float64)
                for name in (
                    "similarity",
                    "fmr",
                    "fmr_low",
                    "fmr_high",
                    "fnmr",
                    "fnmr_low",
                    "fnmr_high",
                )
            }
            found = cls(
                int(block["people"]), int(block["crops"]), float(block["smallest_fmr"]), **columns
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"the calibration lacks {error}") from error
        if len({len(c) for c in columns.values()}) != 1 or len(found.similarity_G) < 2:
            raise ValueError("the calibration's columns are not of one length of at least 2")
        if (np.diff(found.similarity_G) <= 0).any() or (np.diff(found.fmr_G) > 0).any():
            raise ValueError("the calibration's similarity must rise and its fmr must not")
        return found


@dataclass(frozen=True)
class Threshold:
    """What a decision was taken by.

    similarity: a match is at or above it. by, target: what was asked, or the smallest target that
    the calibration supports. interval: 95 % of the target's own rate at this similarity.
    uncertain_from: the similarity that the interval's lower end would allow; from there up to
    `similarity` a person should look. It equals `similarity` where a similarity was asked for."""

    similarity: float
    by: By
    target: float
    interval: tuple[float, float]
    uncertain_from: float


def threshold_at(calibration: Calibration, similarity: float) -> Threshold:
    """The caller's own similarity, in [-1, 1], with the FMR that it has; nothing is uncertain."""
    rates = [
        rate_at(calibration, column, similarity)
        for column in (calibration.fmr_G, calibration.fmr_low_G, calibration.fmr_high_G)
    ]
    return Threshold(similarity, "threshold", rates[0], (rates[1], rates[2]), similarity)


def threshold_for_fmr(calibration: Calibration, target: float) -> Threshold:
    """The lowest similarity whose FMR is at most target, in (0, 1)."""
    target = max(target, calibration.smallest_fmr)
    similarity = _similarity_for(calibration, calibration.fmr_G, target)
    interval = (
        rate_at(calibration, calibration.fmr_low_G, similarity),
        rate_at(calibration, calibration.fmr_high_G, similarity),
    )
    uncertain = _similarity_for(calibration, calibration.fmr_low_G, target)
    return Threshold(similarity, "target_fmr", target, interval, min(uncertain, similarity))


def threshold_for_fpir(calibration: Calibration, target: float, *, faces: int) -> Threshold:
    """The lowest similarity at which FPIR, in a gallery of that many faces, is at most target in
    (0, 1)."""
    faces = max(faces, 1)
    fmr = -math.expm1(math.log1p(-target) / faces)
    by_fmr = threshold_for_fmr(calibration, fmr)
    supported = target if by_fmr.target == fmr else _fpir(by_fmr.target, faces)
    low, high = (_fpir(rate, faces) for rate in by_fmr.interval)
    return Threshold(
        by_fmr.similarity, "target_fpir", supported, (low, high), by_fmr.uncertain_from
    )


def decide(similarity: float | None, threshold: Threshold) -> Decision:
    """The decision on the best candidate's similarity; None where there was no candidate."""
    if similarity is None or similarity < threshold.uncertain_from:
        return "no_match"
    return "match" if similarity >= threshold.similarity else "uncertain"


def rate_at(calibration: Calibration, rate_G: NDArray[np.float64], similarity: float) -> float:
    """One of the calibration's rates at a similarity, linear in its logarithm between grid
    points."""
    logs = np.log(np.maximum(rate_G, FLOOR))
    value = float(np.exp(np.interp(similarity, calibration.similarity_G, logs)))
    return 0.0 if value <= FLOOR * 1.001 else min(value, 1.0)


def _fpir(fmr: float, faces: int) -> float:
    """1 - (1 - fmr)^faces, exact for small rates too."""
    return 1.0 if fmr >= 1 else -math.expm1(faces * math.log1p(-fmr))


def _similarity_for(calibration: Calibration, rate_G: NDArray[np.float64], target: float) -> float:
    """Where a falling rate crosses the target; the grid's last similarity if it never does."""
    below = np.flatnonzero(rate_G <= target)
    if not len(below):
        return float(calibration.similarity_G[-1])
    k = int(below[0])
    if k == 0:
        return float(calibration.similarity_G[0])
    high, low = (float(np.log(max(rate_G[i], FLOOR))) for i in (k - 1, k))
    share = (high - float(np.log(target))) / (high - low)
    left, right = calibration.similarity_G[k - 1], calibration.similarity_G[k]
    return float(left + share * (right - left))
