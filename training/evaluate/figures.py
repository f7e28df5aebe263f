"""python -m training evaluate GRAPH.onnx: the figures and plots of a recognition graph, for its
card.

Everything is measured on the graph that is served, by the service's own alignment.
"""

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.calibration.measure import measure_calibration
from training.data.crops import read_crops as read_set
from training.evaluate import lfw
from training.evaluate.verification import verification
from training.graphs import Embed, embed_all, open_graph


def evaluate(graph: Path, data: Path, cache: Path, *, threads: int = 2) -> dict[str, Any]:
    """`metrics` and `calibration` of a manifest, and the LFW pairs that fail, by name.

    data: the folder with lfw/ and identities/. Nothing in it is trained on but identities' train
    part."""
    embed = open_graph(graph, threads=threads)
    chosen = read_set(data / "identities" / "validation.csv", cache)
    validation = verification(embed_all(embed, chosen.pixels_NHWC), chosen.labels_N)
    unseen = read_set(data / "identities" / "calibration.csv", cache)
    calibration = measure_calibration(embed_all(embed, unseen.pixels_NHWC), unseen.labels_N)
    verified, failing = _lfw(embed, data / "lfw")
    return {
        "sha256": hashlib.sha256(graph.read_bytes()).hexdigest(),
        "metrics": {"lfw": verified, "validation": _rounded(asdict(validation))},
        "calibration": {"data": "identities/calibration: people in no training set", **calibration},
        "lfw_failing_pairs": failing,
    }


def _lfw(embed: Embed, folder: Path) -> tuple[dict[str, Any], list[str]]:
    pairs = lfw.read_pairs(folder / "pairs.txt")
    embeddings = embed_all(embed, lfw.read_crops(folder, pairs.names)).astype(np.float64)
    similarity = (embeddings[pairs.a_P] * embeddings[pairs.b_P]).sum(1)
    right = lfw.ten_fold(similarity, pairs)
    by_fold = np.array([right[pairs.fold_P == f].mean() for f in range(lfw.FOLDS)])
    low, high = lfw.bootstrap_interval(similarity, pairs.same_P, 1e-3)
    figures = {
        "pairs": len(right),
        "accuracy": float(by_fold.mean()),
        "standard_error": float(by_fold.std(ddof=1) / np.sqrt(lfw.FOLDS)),
        "tar_at_far_1e2": lfw.tar_at_far(similarity, pairs.same_P, 1e-2),
        "tar_at_far_1e3": lfw.tar_at_far(similarity, pairs.same_P, 1e-3),
        "tar_at_far_1e3_low": low,
        "tar_at_far_1e3_high": high,
    }
    return _rounded(figures), _named(pairs, similarity, right)


def _named(
    pairs: lfw.Pairs, similarity_P: NDArray[np.float64], right_P: NDArray[np.bool_]
) -> list[str]:
    """The pairs judged wrongly, those that look most wrong first: mated lowest, non-mated
    highest."""
    rows = [
        (abs(similarity_P[i] - similarity_P[~right_P].mean()), i) for i in np.flatnonzero(~right_P)
    ]
    stem = lambda place: Path(pairs.names[place]).stem  # noqa: E731
    return [
        f"{'mated' if pairs.same_P[i] else 'non-mated'} {similarity_P[i]:.3f}: "
        f"{stem(pairs.a_P[i])}, {stem(pairs.b_P[i])}"
        for _, i in sorted(rows, reverse=True)
    ]


def _rounded(figures: dict[str, Any]) -> dict[str, Any]:
    return {k: round(v, 6) if isinstance(v, float) else v for k, v in figures.items()}


def draw_calibration(calibration: dict[str, Any], out: Path) -> None:
    """FMR and FNMR against similarity, log scale, with their 95 % bands, as a picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    curve = {k: np.array(v) for k, v in calibration["curve"].items()}
    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    for name, colour, label in (
        ("fmr", "#c1440e", "FMR: two people taken for one"),
        ("fnmr", "#1f5c99", "FNMR: one person taken for two"),
    ):
        # A rate of zero has no place on a logarithmic axis; there the line ends.
        rate = np.where(curve[name] > 0, curve[name], np.nan)
        low = np.maximum(curve[f"{name}_low"], 1e-9)
        axes.plot(curve["similarity"], rate, color=colour, label=label)
        axes.fill_between(curve["similarity"], low, curve[f"{name}_high"], color=colour, alpha=0.2)
    axes.axhline(
        calibration["smallest_fmr"],
        color="grey",
        linestyle=":",
        label=f"smallest FMR that the set supports, {calibration['smallest_fmr']:.2g}",
    )
    axes.set(
        yscale="log",
        ylim=(1e-6, 1.2),
        xlabel="threshold on the similarity (cosine)",
        ylabel="rate",
        title=f"{calibration['people']} people, {calibration['crops']} crops; "
        "bands: 95 %, bootstrap over people",
    )
    axes.legend(loc="lower center", fontsize=8)
    axes.grid(alpha=0.3)
    figure.savefig(out, dpi=110)
    pyplot.close(figure)
