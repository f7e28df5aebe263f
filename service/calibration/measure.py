"""Measures a calibration: FMR and FNMR over similarity, with intervals from a bootstrap over
people.

All comparisons of two photographs count, each once. They are not independent: what two people look
like is in every comparison of the two. So people are drawn, not comparisons, and a rate is taken as
measured only down to where 30 different pairs of people were falsely matched.

Below that, the tail goes on as an exponential in the similarity, fitted in each round of the
bootstrap to the comparisons beyond that point (their mean excess). Similarities of strangers thin
out faster than that, so the fit errs on the careful side, the more so the further it goes
(benchmarks/results/calibration.md has how far). It is marked as extrapolated wherever it is
used.

Strangers without mates, one photograph each, are a population of a calibration: its FMR is measured
in the same way."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.decision import Calibration, operating_points

STEP: Final = 0.005
RULE_OF: Final = 30  # Doddington: fewer errors than 30 do not carry a rate
MIN_PEOPLE: Final = 10  # 9 have 36 pairs, of which 30 would have to be confused
_ROWS_AT_ONCE: Final = 64  # crops of a person compared with all later ones in one product
_EDGES: Final = np.round(np.arange(-1, 1 + STEP / 2, STEP), 3)
_GRID: Final = len(_EDGES) - 1
_BOUNDS: Final = (0.025, 0.975)

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]


def measure_calibration(
    embeddings_ND: NDArray[np.float32],
    labels_N: Whole,
    *,
    rounds: int = 400,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, people: None,
) -> dict[str, Any]:
    """The manifest's `calibration` block, as service.decision.Calibration reads it.

    embeddings_ND: unit length. labels_N: each crop's person, in [0, people), each with a crop or
    more; who has one alone counts where people are told apart. In each bootstrap round people are
    drawn with replacement and every pair counts by the product of its people's draws (a mated pair
    by its person's). Bounds are the 2.5th and 97.5th percentile of the rounds, FNMR's upper one at
    least 3 in the number of people. Time and not memory grows with the square of the people.
    progress: told how many people are done, of how many. Raises ValueError for fewer than 10 people
    with two crops."""
    require_people(labels_N)
    rng = np.random.default_rng(seed)
    people = int(labels_N.max()) + 1
    drawn = rng.multinomial(people, np.full(people, 1 / people), rounds)
    weights_RP = np.concatenate([np.ones((1, people)), drawn])
    mated_RG, non_mated_RG, confused_G = _counted(embeddings_ND, labels_N, weights_RP, progress)
    columns = _columns("fnmr", 1 - _accepted(mated_RG))
    # The rule of three: no error among n people leaves room for a rate of 3/n.
    several = int((np.bincount(labels_N) >= 2).sum())
    columns["fnmr_high"] = np.maximum(columns["fnmr_high"], 3 / several)
    block: dict[str, Any] = {
        "people": people,
        "crops": len(labels_N),
        "mated_pairs": int(mated_RG[0].sum()),
        "non_mated_pairs": int(non_mated_RG[0].sum()),
        "bootstrap_rounds": rounds,
        "thresholds": [],
        **_false_matches(non_mated_RG, confused_G, columns),
    }
    block["thresholds"] = _thresholds(Calibration.from_manifest(block))
    return block


def measure_population(
    embeddings_ND: NDArray[np.float32],
    *,
    rounds: int = 400,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, strangers: None,
) -> dict[str, Any]:
    """An entry of the `populations` of a calibration's block: the FMR of strangers by similarity.

    embeddings_ND: unit length, one photograph of each stranger. Bootstrap, rule of 30, tail and
    progress as in measure_calibration. Raises ValueError for fewer than 10 strangers."""
    strangers = len(embeddings_ND)
    require_strangers(strangers)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(strangers, np.full(strangers, 1 / strangers), rounds)
    weights_RN = np.concatenate([np.ones((1, strangers)), drawn])
    counts_RG = _counted_strangers(embeddings_ND, weights_RN, progress)
    return {
        "crops": strangers,
        "non_mated_pairs": strangers * (strangers - 1) // 2,
        "bootstrap_rounds": rounds,
        **_false_matches(counts_RG, counts_RG[0, ::-1].cumsum()[::-1], {}),
    }


def with_populations(
    block: dict[str, Any], populations: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The calibration's block with populations of measure_population, and thresholds for each."""
    whole = {**block, "populations": populations}
    calibration = Calibration.from_manifest(whole)
    told = {
        name: {**one, "thresholds": _thresholds(calibration.populations[name])}
        for name, one in populations.items()
    }
    return {**whole, "populations": told}


def require_strangers(strangers: int) -> None:
    """Raise ValueError with their number if there are too few strangers."""
    if strangers < MIN_PEOPLE:
        raise ValueError(f"{strangers} strangers; a population needs {MIN_PEOPLE}")


def _thresholds(calibration: Calibration) -> list[dict[str, Any]]:
    return [
        {k: v if isinstance(v, bool) else float(f"{v:.4g}") for k, v in asdict(point).items()}
        for point in operating_points(calibration)
    ]


def _false_matches(
    non_mated_RG: Floats, confused_G: NDArray[Any], columns: dict[str, Floats]
) -> dict[str, Any]:
    """smallest_fmr, curve and tail of a block. confused_G: how many pairs of people have a
    comparison at or above each similarity. columns: of the curve, beside similarity and FMR."""
    # The lowest rate that 30 pairs of people stand behind.
    supported = int(np.flatnonzero(confused_G >= RULE_OF)[-1])
    fmr_RG = _accepted(non_mated_RG)
    kept = slice(int(np.flatnonzero(fmr_RG[0] >= 1)[-1]), None)
    curve = {"similarity": _EDGES[:-1], **_columns("fmr", fmr_RG), **columns}
    block: dict[str, Any] = {
        "smallest_fmr": float(f"{fmr_RG[0][supported]:.4g}"),
        "curve": {name: _rounded(column[kept]) for name, column in curve.items()},
    }
    if supported < _GRID - 1:
        block["tail"] = _tail(non_mated_RG, supported)
    return block


def require_people(labels_N: Whole) -> None:
    """Nothing, where there are enough people to measure. Raises ValueError with how many are."""
    several = int((np.bincount(labels_N) >= 2).sum()) if len(labels_N) else 0
    if several < MIN_PEOPLE:
        raise ValueError(
            f"{several} people have two photographs or more; a calibration needs {MIN_PEOPLE}"
        )


def _counted(
    embeddings_ND: NDArray[np.float32],
    labels_N: Whole,
    weights_RP: Floats,
    progress: Callable[[int, int], None],
) -> tuple[Floats, Floats, Whole]:
    """Weighted counts of comparisons by similarity, mated (R, G) and non-mated (R, G); and how
    many pairs of people have a comparison at or above each similarity (G,)."""
    order = np.argsort(labels_N, kind="stable")
    rows_ND, whose_N = embeddings_ND[order], labels_N[order]
    people = weights_RP.shape[1]
    mated_RG, non_mated_RG = (np.zeros((len(weights_RP), _GRID)) for _ in range(2))
    highest_G = np.zeros(_GRID, np.int64)
    for p in range(people):
        start, end = np.searchsorted(whose_N, (p, p + 1))
        own_ND, later_ND = rows_ND[start:end], rows_ND[end:]
        own = (own_ND @ own_ND.T)[np.triu_indices(len(own_ND), 1)]
        mated_RG += weights_RP[:, p, None] * np.bincount(_bins(own), minlength=_GRID)
        counts_QG = _counted_against(own_ND, later_ND, whose_N[end:] - p - 1, people - p - 1)
        non_mated_RG += weights_RP[:, p, None] * (weights_RP[:, p + 1 :] @ counts_QG)
        highest_Q = _GRID - 1 - np.argmax(counts_QG[:, ::-1] > 0, axis=1)
        highest_G += np.bincount(highest_Q, minlength=_GRID)
        progress(p + 1, people)
    return mated_RG, non_mated_RG, highest_G[::-1].cumsum()[::-1]


def _counted_against(
    own_ND: NDArray[np.float32], later_ND: NDArray[np.float32], whose_N: Whole, others: int
) -> Floats:
    """Comparisons of one person's crops with each later person's, by similarity: (others, G)."""
    counts = np.zeros(others * _GRID)
    for k in range(0, len(own_ND), _ROWS_AT_ONCE):
        bins = _bins(own_ND[k : k + _ROWS_AT_ONCE] @ later_ND.T) + whose_N * _GRID
        counts += np.bincount(bins.ravel(), minlength=others * _GRID)
    return counts.reshape(others, _GRID)


def _counted_strangers(
    embeddings_ND: NDArray[np.float32],
    weights_RN: Floats,
    progress: Callable[[int, int], None],
) -> Floats:
    """Weighted counts of all pairs by similarity (R, G), as _counted has them of people with one
    crop each; some ten times faster, since a pair of people has one comparison."""
    counts_GR = np.zeros((_GRID, len(weights_RN)))
    weights_NR = np.ascontiguousarray(weights_RN.T, np.float32)  # small whole numbers: exact
    for n in range(len(embeddings_ND) - 1):
        bins = _bins(embeddings_ND[n + 1 :] @ embeddings_ND[n])
        order = np.argsort(bins, kind="stable")
        found, starts = np.unique(bins[order], return_index=True)
        sums = np.add.reduceat(weights_NR[n + 1 :][order], starts, axis=0)
        counts_GR[found] += sums * weights_NR[n]
        progress(n + 1, len(embeddings_ND))
    progress(len(embeddings_ND), len(embeddings_ND))
    return counts_GR.T


def _bins(similarity: NDArray[np.float32]) -> Whole:
    """The place in the grid of each similarity: the last grid similarity that it reaches."""
    place = np.searchsorted(_EDGES, similarity, side="right") - 1
    return np.clip(place, 0, _GRID - 1).astype(np.int64)


def _accepted(counts_RG: Floats) -> Floats:
    """(R', G): the share of comparisons at or above each grid similarity.

    A round that drew none is left out; the first, in which everybody counts once, has all."""
    above = counts_RG[:, ::-1].cumsum(1)[:, ::-1]
    above = above[above[:, 0] > 0]
    shares: Floats = above / above[:, :1]
    return shares


def _columns(name: str, rates_RG: Floats) -> dict[str, Floats]:
    """A rate, as measured and its bounds: the first round has everybody once."""
    low, high = np.quantile(rates_RG[1:], _BOUNDS, axis=0)
    return {name: rates_RG[0], f"{name}_low": low, f"{name}_high": high}


def _tail(non_mated_RG: Floats, supported: int) -> dict[str, list[float]]:
    """FMR(s) = FMR(s0) exp(-(s - s0) / e) for the grid beyond s0, the last supported similarity.

    e: the mean by which the comparisons at or above s0 exceed it, that is the exponential's
    maximum likelihood. A round without such a comparison has a rate of zero."""
    fmr_R = _accepted(non_mated_RG)[:, supported]
    beyond_RG = non_mated_RG[non_mated_RG.sum(1) > 0][:, supported:]
    excess_G = _EDGES[supported:-1] - _EDGES[supported] + STEP / 2  # the middle of each step
    mean_R = (beyond_RG @ excess_G) / np.maximum(beyond_RG.sum(1), 1)
    further_G = _EDGES[supported + 1 : -1]
    steps_RG = (further_G - _EDGES[supported]) / np.maximum(mean_R, STEP / 2)[:, None]
    columns = _columns("fmr", fmr_R[:, None] * np.exp(-steps_RG))
    return {"similarity": _rounded(further_G), **{k: _rounded(v) for k, v in columns.items()}}


def _rounded(column: Floats) -> list[float]:
    return [float(f"{value:.4g}") for value in column]
