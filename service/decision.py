"""Similarity to decision: thresholds by the error rate that they promise, with its interval.

A calibration is measured on people whom no training has seen (service.calibration.measure): for a
grid of similarities the false match rate (FMR) and false non-match rate (FNMR) of ISO/IEC 19795-1,
with 95 % intervals from a bootstrap over people. Between two grid points the logarithm of the rate
is taken as linear. A rate below `smallest_fmr` was seen in too few pairs of people to be measured:
where the calibration has a fitted tail the rate comes from that, and is said to be extrapolated;
where it has none, `smallest_fmr` is the lowest that is promised.

An open-set search compares a probe with every enrolled face. If F faces are enrolled and the
probe's person is not, FPIR <= 1 - (1 - FMR)^F; equality would need independent comparisons, and
both the shared probe and the several faces of one person make them depend positively. The bound is
what is used: a threshold by target_fpir errs on the careful side.

How often strangers match depends on who they are. A calibration may hold further populations of
strangers, each with an FMR of its own; a threshold holds for one of them, or for whichever is the
worst. FNMR is always that of the calibration's people: strangers have no mates."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from service.errors import PopulationUnknown

Decision = Literal["match", "no_match", "uncertain"]
By = Literal["threshold", "target_fmr", "target_fpir"]
FLOOR = 1e-12  # where the logarithm of a rate of zero is taken; no rate below it is promised
SHARES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)  # whose quantiles are told
TARGETS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)  # false match rates that are tabulated
OWN_PEOPLE: Final = "calibration"  # the population of a calibration's own people
WORST: Final = "worst"  # the population whose threshold is the highest, own people included
_FMR = ("fmr", "fmr_low", "fmr_high")
_FNMR = ("fnmr", "fnmr_low", "fnmr_high")


@dataclass(frozen=True)
class Calibration:
    """Measured error rates. similarity_G: float64 (G,), rising; the rates belong to "accept at or
    above".

    fmr_G and its bounds fall with the similarity, fnmr_G rises. smallest_fmr: the lowest FMR that
    was measured, at least 30 distinct pairs of people having been falsely matched there (the rule
    of 30, applied to people, since comparisons of the same two people depend on each other).
    lowest_fmr: the lowest that is promised; under smallest_fmr where a fitted tail goes on from
    there, and fmr_G with its bounds is that tail. name: the user's own for it, None for a model's.
    population: whose FMR it is. populations: the same calibration with the FMR of other strangers,
    by their name; people and crops are then how many of them there are.
    """

    people: int
    crops: int
    smallest_fmr: float
    lowest_fmr: float
    name: str | None
    similarity_G: NDArray[np.float64]
    fmr_G: NDArray[np.float64]
    fmr_low_G: NDArray[np.float64]
    fmr_high_G: NDArray[np.float64]
    fnmr_G: NDArray[np.float64]
    fnmr_low_G: NDArray[np.float64]
    fnmr_high_G: NDArray[np.float64]
    population: str = OWN_PEOPLE
    populations: Mapping[str, "Calibration"] = field(default_factory=dict)

    @classmethod
    def from_manifest(cls, block: dict[str, Any], *, name: str | None = None) -> "Calibration":
        """The manifest's `calibration` block. Raises ValueError where it is not one."""
        own = cls._from_block(block, name)
        populations = block.get("populations", {})
        if not isinstance(populations, Mapping):
            raise ValueError("the calibration's populations are no object")
        return replace(
            own, populations={key: _population(own, key, one) for key, one in populations.items()}
        )

    @classmethod
    def _from_block(cls, block: dict[str, Any], name: str | None) -> "Calibration":
        try:
            people, crops = int(block["people"]), int(block["crops"])
            smallest = lowest = float(block["smallest_fmr"])
            columns: dict[str, Any] = {
                f"{column}_G": np.array(block["curve"][column], np.float64)
                for column in ("similarity", *_FMR, *_FNMR)
            }
            if "tail" in block:
                lowest = _go_on(columns, block["tail"])
        except KeyError as error:
            raise ValueError(f"the calibration lacks {error}") from error
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"the calibration is garbled: {error}") from error
        found = cls(people, crops, smallest, lowest, name, **columns)
        if len({c.shape for c in columns.values()}) != 1 or len(found.similarity_G) < 2:
            raise ValueError("the calibration's columns are not of one length of at least 2")
        if not all(np.isfinite(column).all() for column in columns.values()):
            raise ValueError("the calibration has a value that is no number")
        if (np.diff(found.similarity_G) <= 0).any() or (np.diff(found.fmr_G) > 0).any():
            raise ValueError("the calibration's similarity must rise and its fmr must not")
        if not 0 < lowest <= smallest <= 1:
            raise ValueError("the calibration's smallest_fmr is no rate that it can promise")
        return found


def _population(own: Calibration, name: str, block: Any) -> Calibration:
    """The calibration with a population's FMR. Raises ValueError where the block is none."""
    if name in (OWN_PEOPLE, WORST):
        raise ValueError(f"a population cannot be named {name!r}: that has a meaning of its own")
    try:
        at = np.array(block["curve"]["similarity"], np.float64)
        fnmr = {column: _rates_at(own, getattr(own, f"{column}_G"), at) for column in _FNMR}
        merged = {
            **{key: block[key] for key in ("smallest_fmr", "tail") if key in block},
            "people": block["crops"],
            "crops": block["crops"],
            "curve": {**block["curve"], **fnmr},
        }
        found = Calibration._from_block(merged, own.name)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"population {name!r}: {error}") from error
    return replace(found, population=name)


def _go_on(columns: dict[str, NDArray[np.float64]], tail: dict[str, Any]) -> float:
    """Puts a fitted tail in the place of the columns' ends; the lowest FMR that it has."""
    count = len(tail["similarity"])
    for name in ("similarity", *_FMR):
        columns[f"{name}_G"][-count:] = tail[name]
    return float(columns["fmr_G"][-1])


@dataclass(frozen=True)
class Threshold:
    """What a decision was taken by.

    similarity: a match is at or above it. by, target: what was asked, or the smallest target that
    the calibration promises. interval: 95 % of the target's own rate at this similarity.
    extrapolated: fewer than 30 pairs of people stand behind the rate. uncertain_from: the
    similarity that the interval's lower end would allow; from there up to `similarity` a person
    should look. It equals `similarity` where a similarity was asked for. calibration: the name of
    the user's own that it is from, None for the model's. population: whose FMR decided; fnmr, with
    its interval: of the calibration's people at this similarity."""

    similarity: float
    by: By
    target: float
    interval: tuple[float, float]
    extrapolated: bool
    uncertain_from: float
    calibration: str | None
    population: str
    fnmr: float
    fnmr_interval: tuple[float, float]


@dataclass(frozen=True)
class OperatingPoint:
    """What a target FMR asks for and costs. Each value stands with its 95 % interval over people.

    similarity: the threshold. fmr: at that threshold, the target's own unless the calibration
    promises none so low. extrapolated: fewer than 30 pairs of people stand behind the target."""

    target_fmr: float
    similarity: float
    similarity_low: float
    similarity_high: float
    fmr: float
    fmr_low: float
    fmr_high: float
    fnmr: float
    fnmr_low: float
    fnmr_high: float
    extrapolated: bool


def threshold_at(calibration: Calibration, similarity: float) -> Threshold:
    """The caller's own similarity, in [-1, 1], with the FMR that it has; nothing is uncertain."""
    rates = [
        rate_at(calibration, column, similarity)
        for column in (calibration.fmr_G, calibration.fmr_low_G, calibration.fmr_high_G)
    ]
    return Threshold(
        similarity,
        "threshold",
        rates[0],
        (rates[1], rates[2]),
        extrapolated=rates[0] < calibration.smallest_fmr,
        uncertain_from=similarity,
        calibration=calibration.name,
        population=calibration.population,
        **_cost(calibration, similarity),
    )


def threshold_for_fmr(calibration: Calibration, target: float) -> Threshold:
    """The lowest similarity whose FMR is at most target, in (0, 1)."""
    target = max(target, calibration.lowest_fmr, FLOOR)
    similarity = _similarity_for(calibration, calibration.fmr_G, target)
    interval = (
        rate_at(calibration, calibration.fmr_low_G, similarity),
        rate_at(calibration, calibration.fmr_high_G, similarity),
    )
    uncertain = _similarity_for(calibration, calibration.fmr_low_G, target)
    return Threshold(
        similarity,
        "target_fmr",
        target,
        interval,
        extrapolated=target < calibration.smallest_fmr,
        uncertain_from=min(uncertain, similarity),
        calibration=calibration.name,
        population=calibration.population,
        **_cost(calibration, similarity),
    )


def threshold_for_fpir(calibration: Calibration, target: float, *, faces: int) -> Threshold:
    """The lowest similarity at which FPIR, in a gallery of that many faces, is at most target in
    (0, 1)."""
    faces = max(faces, 1)
    fmr = -math.expm1(math.log1p(-target) / faces)
    by_fmr = threshold_for_fmr(calibration, fmr)
    supported = target if by_fmr.target == fmr else _fpir(by_fmr.target, faces)
    low, high = (_fpir(rate, faces) for rate in by_fmr.interval)
    return replace(by_fmr, by="target_fpir", target=supported, interval=(low, high))


def strictest(
    calibration: Calibration, population: str, threshold: Callable[[Calibration], Threshold]
) -> Threshold:
    """The threshold for a population: by its name, OWN_PEOPLE, or WORST, which is the highest of
    all populations' thresholds and, of equal ones, that with the highest rate.

    threshold: makes it of a calibration. Raises PopulationUnknown."""
    of = seen_by(calibration, population)
    return max(map(threshold, of), key=lambda found: (found.similarity, found.target))


def seen_by(calibration: Calibration, population: str) -> list[Calibration]:
    """The calibration with the FMR of each population that the name stands for.

    Raises PopulationUnknown, also for WORST where there is no other population than its people."""
    if population == OWN_PEOPLE:
        return [calibration]
    if population == WORST and calibration.populations:
        return [calibration, *calibration.populations.values()]
    if population in calibration.populations:
        return [calibration.populations[population]]
    known = [OWN_PEOPLE, *calibration.populations, *([WORST] if calibration.populations else [])]
    raise PopulationUnknown(population, calibration.name, known)


def quantiles(calibration: Calibration) -> dict[str, dict[float, float]]:
    """Similarities below which each of SHARES of the mated and non-mated comparisons lies."""
    return {
        "mated": {
            share: float(np.interp(share, calibration.fnmr_G, calibration.similarity_G))
            for share in SHARES
        },
        "non_mated": {
            share: _similarity_for(calibration, calibration.fmr_G, 1 - share) for share in SHARES
        },
    }


def operating_points(calibration: Calibration) -> list[OperatingPoint]:
    """What each of TARGETS asks for and costs.

    The bounds of a threshold are where the bounds of the FMR meet the target: a round of the
    bootstrap has its threshold below s just where its FMR at s is below the target, so the
    percentiles of the one are the crossings of the percentiles of the other."""
    return [_operating_point(calibration, target) for target in TARGETS]


def _operating_point(calibration: Calibration, target: float) -> OperatingPoint:
    promised = max(target, calibration.lowest_fmr)
    similarity, low, high = (
        _similarity_for(calibration, getattr(calibration, f"{name}_G"), promised) for name in _FMR
    )
    rates = {
        name: rate_at(calibration, getattr(calibration, f"{name}_G"), similarity)
        for name in (*_FMR, *_FNMR)
    }
    return OperatingPoint(
        target, similarity, low, high, **rates, extrapolated=target < calibration.smallest_fmr
    )


def decide(similarity: float | None, threshold: Threshold) -> Decision:
    """The decision on the best candidate's similarity; None where there was no candidate."""
    if similarity is None or similarity < threshold.uncertain_from:
        return "no_match"
    return "match" if similarity >= threshold.similarity else "uncertain"


def rate_at(calibration: Calibration, rate_G: NDArray[np.float64], similarity: float) -> float:
    """One of the calibration's rates at a similarity, linear in its logarithm between grid
    points."""
    return float(_rates_at(calibration, rate_G, np.array(similarity, np.float64)))


def _rates_at(
    calibration: Calibration, rate_G: NDArray[np.float64], similarity_S: NDArray[np.float64]
) -> NDArray[np.float64]:
    """One of the calibration's rates at several similarities, as rate_at has it."""
    logs_G = np.log(np.maximum(rate_G, FLOOR))
    rates_S = np.exp(np.interp(similarity_S, calibration.similarity_G, logs_G))
    return np.where(rates_S <= FLOOR * 1.001, 0.0, np.minimum(rates_S, 1.0))


def _cost(calibration: Calibration, similarity: float) -> dict[str, Any]:
    """A threshold's `fnmr` and `fnmr_interval`."""
    fnmr, low, high = (
        rate_at(calibration, getattr(calibration, f"{name}_G"), similarity) for name in _FNMR
    )
    return {"fnmr": fnmr, "fnmr_interval": (low, high)}


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
