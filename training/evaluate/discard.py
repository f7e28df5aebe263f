"""Error versus discard: what is left of false non-matches when the comparisons whose photographs
are worth least are left out (the EDC of ISO/IEC 29794-1; Grother and Tabassi 2007 call it error
versus reject).

A comparison of two photographs is worth what the worse of them is. The threshold is fixed before
anything is left out. P: comparisons of two photographs of one person; R: rounds of the bootstrap,
over people, the first of them everyone once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.evaluate.bootstrap import draws, measured, share

SHARES = np.linspace(0, 0.5, 51)  # left out, at most
TOLD = (0.02, 0.05, 0.1, 0.2)  # the shares that tables have


@dataclass(frozen=True)
class Comparisons:
    """Comparisons of people with themselves.

    a_P, b_P: int64, the photographs, places in whatever tells their worth. person_P: int64, in
    [0, people). missed_P: bool, those at or below the threshold."""

    a_P: NDArray[np.int64]
    b_P: NDArray[np.int64]
    person_P: NDArray[np.int64]
    missed_P: NDArray[np.bool_]

    def worse(self, worth_N: NDArray[np.floating]) -> NDArray[np.float64]:
        """worth_P: that of each comparison's worse photograph."""
        return np.minimum(worth_N[self.a_P], worth_N[self.b_P]).astype(np.float64)

    def weights(self, rounds: int) -> NDArray[np.float64]:
        """weights_RP of a bootstrap over people."""
        return draws(int(self.person_P.max()) + 1, rounds=rounds)[:, self.person_P]


def discard_rates(
    worth_P: NDArray[np.float64],
    missed_P: NDArray[np.bool_],
    weights_RP: NDArray[np.float64],
    shares_G: NDArray[np.float64],
) -> NDArray[np.float64]:
    """(R, G): FNMR of what is left when a share of each round's weight is discarded, the least
    worth first. Comparisons of equal worth go in the order in which they are given."""
    order = np.argsort(worth_P, kind="stable")
    weights = weights_RP[:, order]
    # What is left from each place on, and of it what was missed; nothing from the last on.
    left = np.cumsum(weights[:, ::-1], axis=1)[:, ::-1]
    missed = np.cumsum((weights * missed_P[order])[:, ::-1], axis=1)[:, ::-1]
    kept = (1 - np.asarray(shares_G)) * left[:, :1]
    # left falls: the first place at which no more is left than is to be kept.
    places = np.stack([np.searchsorted(-row, -k) for row, k in zip(left, kept, strict=True)])
    places = np.minimum(places, weights.shape[1] - 1)
    rows = np.arange(len(weights))[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        return missed[rows, places] / left[rows, places]


def curve(
    worth_N: NDArray[np.floating], comparisons: Comparisons, *, rounds: int = 400
) -> dict[str, Any]:
    """FNMR against the share discarded, with 95 %: {share, fnmr, fnmr_low, fnmr_high}, lists; and
    `told`: a row for each of TOLD, with the ratio to the FNMR of all, below 1 where it helps."""
    weights_RP = comparisons.weights(rounds)
    worth_P = comparisons.worse(worth_N)
    rates_RG = discard_rates(worth_P, comparisons.missed_P, weights_RP, SHARES)
    low, high = np.nanquantile(rates_RG[1:], (0.025, 0.975), axis=0)
    told_RT = discard_rates(worth_P, comparisons.missed_P, weights_RP, np.array(TOLD))
    ratio_RT = _ratio(told_RT, share(comparisons.missed_P, weights_RP)[:, None])
    return {
        "share": SHARES.tolist(),
        "fnmr": rates_RG[0].tolist(),
        "fnmr_low": low.tolist(),
        "fnmr_high": high.tolist(),
        "told": [
            {"share": part, **measured("ratio", ratio_RT[:, t])} for t, part in enumerate(TOLD)
        ],
    }


def ideal(comparisons: Comparisons) -> list[float]:
    """FNMR at SHARES had worth known every miss beforehand: no measure can do better."""
    rate = float(comparisons.missed_P.mean())
    return (np.maximum(0, rate - SHARES) / (1 - SHARES)).tolist()


def gate(
    passed_N: NDArray[np.bool_], comparisons: Comparisons, *, rounds: int = 400
) -> dict[str, float]:
    """What a gate does that lets these photographs pass: shares of photographs and of comparisons
    refused, FNMR of the rest, and its ratio to the FNMR of all, with 95 %."""
    weights_RP = comparisons.weights(rounds)
    kept_P = passed_N[comparisons.a_P] & passed_N[comparisons.b_P]
    fnmr_R = share(comparisons.missed_P[kept_P], weights_RP[:, kept_P])
    return {
        "photographs_refused": float((~passed_N).mean()),
        **measured("comparisons_refused", share(~kept_P, weights_RP)),
        **measured("fnmr", fnmr_R),
        **measured("ratio", _ratio(fnmr_R, share(comparisons.missed_P, weights_RP))),
    }


def gates(
    passed: Mapping[str, NDArray[np.bool_]], comparisons: Comparisons
) -> dict[str, dict[str, float]]:
    """`gate` of each level."""
    return {level: gate(passed_N, comparisons) for level, passed_N in passed.items()}


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """part / whole; NaN where nothing was missed in the first place."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return part / whole
