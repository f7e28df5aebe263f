"""Measures a calibration: FMR and FNMR over similarity, with intervals from a bootstrap over
people."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

STEP = 0.005
RULE_OF = 30  # Doddington: fewer errors than 30 do not carry a rate


def measure_calibration(
    embeddings_ND: NDArray[np.float32],
    labels_N: NDArray[np.int64],
    *,
    rounds: int = 400,
    seed: int = 0,
) -> dict[str, Any]:
    """The manifest's `calibration` block, as service.decision.Calibration reads it.

    embeddings_ND: unit length. labels_N: each crop's person, in [0, people). All pairs of crops
    count, each once. In each bootstrap round people are drawn with replacement and every pair
    counts by the product of its people's draws (a mated pair by its person's), since pairs of the
    same people are not independent. Bounds are the 2.5th and 97.5th percentile of the rounds."""
    edges = np.arange(-1, 1 + STEP / 2, STEP)
    mated_PG, non_mated_QG, pairs_Q2 = _counts(embeddings_ND, labels_N, edges)
    people = len(mated_PG)
    rng = np.random.default_rng(seed)
    weights = np.concatenate(
        [np.ones((1, people)), rng.multinomial(people, np.full(people, 1 / people), rounds)]
    )
    fnmr_RG = 1 - _accepted(weights, mated_PG)
    pair_weights = weights[:, pairs_Q2[:, 0]] * weights[:, pairs_Q2[:, 1]]
    fmr_RG = _accepted(pair_weights, non_mated_QG)
    # The lowest rate that 30 pairs of people stand behind.
    falsely_matched = (non_mated_QG[:, ::-1].cumsum(1)[:, ::-1] > 0).sum(0)
    supported = np.flatnonzero(falsely_matched >= RULE_OF)[-1]
    kept = slice(max(np.flatnonzero(fmr_RG[0] >= 1)[-1], 0), None)
    curve = {"similarity": edges[:-1][kept]}
    for name, rates in (("fmr", fmr_RG), ("fnmr", fnmr_RG)):
        low, high = np.quantile(rates[1:], (0.025, 0.975), axis=0)
        for suffix, column in (("", rates[0]), ("_low", low), ("_high", high)):
            curve[name + suffix] = column[kept]
    rounded = {k: [float(f"{v:.4g}") for v in column] for k, column in curve.items()}
    return {
        "people": people,
        "crops": len(labels_N),
        "mated_pairs": int(mated_PG.sum()),
        "non_mated_pairs": int(non_mated_QG.sum()),
        "bootstrap_rounds": rounds,
        "smallest_fmr": float(f"{fmr_RG[0][supported]:.4g}"),
        "operating_points": _operating_points(rounded),
        "curve": rounded,
    }


def _operating_points(curve: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """For the card: what the first grid similarity of at most an FMR costs in false non-matches."""
    points = {}
    for target in (1e-2, 1e-3, 1e-4):
        k = next((i for i, rate in enumerate(curve["fmr"]) if rate <= target), None)
        if k is not None:
            points[f"FMR {target:g}"] = {name: column[k] for name, column in curve.items()}
    return points


def _counts(
    embeddings_ND: NDArray[np.float32], labels_N: NDArray[np.int64], edges: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Histograms of similarity: mated a person (P, G), non-mated a pair of people (Q, G), the
    pairs."""
    people = int(labels_N.max()) + 1
    groups = [embeddings_ND[labels_N == p] for p in range(people)]
    histogram = lambda s: np.histogram(np.clip(s, -1, 1 - 1e-9), edges)[0]  # noqa: E731
    mated = np.stack([histogram((g @ g.T)[np.triu_indices(len(g), 1)]) for g in groups])
    pairs = np.stack(np.triu_indices(people, 1), axis=1)
    non_mated = np.stack([histogram((groups[i] @ groups[j].T).ravel()) for i, j in pairs])
    return mated, non_mated, pairs


def _accepted(weights_RK: NDArray[np.float64], counts_KG: NDArray[np.int64]) -> NDArray[np.float64]:
    """(R, G): the weighted share of comparisons at or above each grid similarity."""
    totals = weights_RK @ counts_KG
    above = totals[:, ::-1].cumsum(1)[:, ::-1]
    return above / above[:, :1]
