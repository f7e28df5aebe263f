"""The bootstrap: how far a figure could have been another, had others of the same kind been drawn.

Rows of weights stand for rounds: entry (r, i) says how often i was drawn in round r. The first row
is everyone once, so that a figure and its rounds come out of one computation."""

import math

import numpy as np
from numpy.typing import NDArray

ROUNDS = 400
COVERAGE = (0.025, 0.975)


def draws(count: int, *, rounds: int = ROUNDS, seed: int = 0) -> NDArray[np.float64]:
    """Weights (1 + rounds, count): everyone once, then `rounds` draws of `count` with replacement.

    Raises ValueError where there is nobody to draw."""
    if count < 1:
        raise ValueError("nothing to draw from: the set is empty")
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), rounds)
    return np.concatenate([np.ones((1, count)), drawn])


def interval(values_R: NDArray[np.float64]) -> tuple[float, float]:
    """The 2.5th and 97.5th percentile of the rounds, without the first row's value.

    A round that could not be measured is NaN and left out; NaN where none could."""
    rounds = values_R[1:][np.isfinite(values_R[1:])]
    if not len(rounds):
        return float("nan"), float("nan")
    low, high = np.quantile(rounds, COVERAGE)
    return float(low), float(high)


def widened(rate: float, count: int) -> tuple[float, float]:
    """95 % about a rate among `count` by Wilson's score interval: never of width zero.

    For where the bootstrap gives one value alone, as it does of a rate of 0 or 1: draws of the same
    hold no other outcome."""
    z = 1.959964
    middle = (rate + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * math.sqrt(rate * (1 - rate) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    return max(0.0, min(middle - half, rate)), min(1.0, max(middle + half, rate))


def measured(name: str, values_R: NDArray[np.float64]) -> dict[str, float]:
    """{name, name_low, name_high} of a figure's rounds."""
    low, high = interval(values_R)
    return {name: float(values_R[0]), f"{name}_low": low, f"{name}_high": high}


def share(hits_N: NDArray[np.bool_], weights_RN: NDArray[np.float64]) -> NDArray[np.float64]:
    """(R,): the weighted share of hits; NaN in a round where nothing has weight."""
    total_R = weights_RN.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (weights_RN @ hits_N.astype(np.float64)) / total_R
