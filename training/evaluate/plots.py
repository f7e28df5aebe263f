"""Pictures of figures; matplotlib's home here. Each function writes one file, whose suffix says
the form (png, svg, pdf)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import NormalDist
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from numpy.typing import NDArray

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]  # (fmr_G, fnmr_G), fmr rising
TICKS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95)


@contextmanager
def _axes(out: Path, width: float = 7, height: float = 4.6) -> Iterator[Axes]:
    figure, axes = pyplot.subplots(figsize=(width, height), layout="constrained")
    yield axes
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)
    pyplot.close(figure)


def draw_det(curves: Mapping[str, Curve], title: str, out: Path) -> None:
    """FNMR against FMR, both on normal-deviate axes (Martin et al. 1997), a line a graph.

    Where similarities of mated and non-mated pairs are normally distributed the lines are
    straight. A rate of zero has no place there: a line ends at the last rate that was seen."""
    with _axes(out, height=5.6) as axes:
        for name, (fmr, fnmr) in curves.items():
            seen = (fmr > 0) & (fnmr > 0) & (fmr < 1) & (fnmr < 1)
            axes.plot(_deviates(fmr[seen]), _deviates(fnmr[seen]), label=name)
        axes.axline((0, 0), slope=1, color="grey", linestyle=":", linewidth=1)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_ticks(_deviates(np.array(TICKS)), [_percent(tick) for tick in TICKS])
        axes.set(xlim=_shown(curve[0] for curve in curves.values()))
        axes.set(ylim=_shown(curve[1] for curve in curves.values()))
        axes.set(xlabel="false match rate (FMR)", ylabel="false non-match rate (FNMR)", title=title)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)


def draw_roc(curves: Mapping[str, Curve], title: str, out: Path) -> None:
    """TAR (1 - FNMR) against FAR (FMR) on a logarithmic scale, a line a graph."""
    with _axes(out) as axes:
        for name, (fmr, fnmr) in curves.items():
            seen = fmr > 0
            axes.plot(fmr[seen], 1 - fnmr[seen], label=name)
        axes.set(xscale="log", ylim=(0, 1.01), title=title)
        axes.set(xlabel="false accept rate (FAR)", ylabel="true accept rate (TAR)")
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right", fontsize=8)


def draw_identification(galleries: Mapping[str, Sequence[Mapping[str, Any]]], out: Path) -> None:
    """Rank-1 misses and FNIR at FPIR 1e-2 against the gallery's size, with 95 % bands.

    galleries: {graph: rows of identification.identification}."""
    with _axes(out) as axes:
        for k, (name, rows) in enumerate(galleries.items()):
            size = [row["people"] + row["distractors"] for row in rows]
            for figure, style, label in (
                ("fnir_at_fpir_1e2", "-", "FNIR at FPIR 1 %"),
                ("rank_1", "--", "not at rank 1"),
            ):
                value, low, high = (
                    np.array([row[figure + end] for row in rows], float)
                    for end in ("", "_low", "_high")
                )
                if figure == "rank_1":
                    value, low, high = 1 - value, 1 - high, 1 - low
                axes.plot(size, value, f"C{k}{style}", marker="o", label=f"{name}: {label}")
                axes.fill_between(size, low, high, color=f"C{k}", alpha=0.15)
        axes.set(xscale="log", ylim=(0, 1.01), xlabel="people enrolled", ylabel="rate")
        axes.set_title("searches for the people of identities/calibration")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)


def draw_groups(groups: Mapping[str, Mapping[str, Any]], title: str, out: Path) -> None:
    """FMR of each group with its 95 %, on a logarithmic scale. groups: {group: its row}, as
    groups.group_fmr gives them; a group without a rate is left out."""
    rows = {name: row for name, row in groups.items() if row.get("fmr")}
    with _axes(out, height=1.2 + 0.28 * max(len(rows), 4)) as axes:
        for place, row in enumerate(rows.values()):
            axes.plot([row["fmr_low"], row["fmr_high"]], [place, place], color="C0", linewidth=3)
            axes.plot(row["fmr"], place, "o", color="black")
        labels = [f"{name} ({row['people']})" for name, row in rows.items()]
        axes.set_yticks(range(len(rows)), labels)
        axes.invert_yaxis()
        axes.set(xscale="log", xlabel="false match rate among strangers", title=title)
        axes.grid(alpha=0.3)


def draw_confusion(
    confusion_KK: Sequence[Sequence[int]], classes: Sequence[str], title: str, out: Path
) -> None:
    """The share of each true class (a row) that got each answer, with the counts written in."""
    counts = np.array(confusion_KK)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    with _axes(out, width=2 + 0.7 * len(classes), height=1.6 + 0.6 * len(classes)) as axes:
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (i, j), count in np.ndenumerate(counts):
            colour = "white" if shares[i, j] > 0.5 else "black"
            axes.text(j, i, str(count), ha="center", va="center", color=colour, fontsize=8)
        axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
        axes.set_yticks(range(len(classes)), classes)
        axes.set(xlabel="answer", ylabel="truth", title=title)


def draw_reliability(points: Sequence[Mapping[str, float]], title: str, out: Path) -> None:
    """Accuracy against confidence, as reliability.reliability gives them; the larger a point, the
    more answers. On the diagonal a confidence means what it says."""
    confidence, accuracy, count = (
        np.array([point[key] for point in points]) for key in ("confidence", "accuracy", "count")
    )
    with _axes(out, width=5, height=4.8) as axes:
        axes.plot([0, 1], [0, 1], color="grey", linestyle=":")
        axes.plot(confidence, accuracy, color="C0")
        axes.scatter(confidence, accuracy, 12 + 160 * count / count.sum(), color="C0")
        axes.set(xlim=(0, 1), ylim=(0, 1.01), title=title)
        axes.set(xlabel="confidence", ylabel="share that is right")
        axes.grid(alpha=0.3)


def draw_face_size(
    curves: Mapping[str, Sequence[Mapping[str, float]]],
    figure: str,
    smallest_px: float,
    title: str,
    out: Path,
) -> None:
    """A figure against the distance between the eyes, a line a set, as face_size.size_curve gives
    them; a dotted line at the smallest face that is answered."""
    with _axes(out, height=4.2) as axes:
        for name, rows in curves.items():
            sizes, values = ([row[key] for row in rows] for key in ("inter_eye_px", figure))
            axes.plot(sizes, values, marker="o", markersize=4, label=name)
        label = f"smallest face answered, {smallest_px:g} px"
        axes.axvline(smallest_px, color="grey", linestyle=":", label=label)
        axes.set(xlabel="pixels between the eyes", ylabel=figure.replace("_", " "), title=title)
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right", fontsize=8)


def draw_calibration(calibration: Mapping[str, Any], out: Path) -> None:
    """FMR and FNMR against similarity, log scale, with their 95 % bands; the FMR of further
    populations without."""
    curve = {k: np.array(v) for k, v in calibration["curve"].items()}
    with _axes(out, width=10, height=4.2) as axes:
        for name, colour, label in (
            ("fmr", "#c1440e", "FMR: two people taken for one"),
            ("fnmr", "#1f5c99", "FNMR: one person taken for two"),
        ):
            # A rate of zero has no place on a logarithmic axis; there the line ends.
            rate = np.where(curve[name] > 0, curve[name], np.nan)
            low = np.maximum(curve[f"{name}_low"], 1e-9)
            axes.plot(curve["similarity"], rate, color=colour, label=label)
            axes.fill_between(
                curve["similarity"], low, curve[f"{name}_high"], color=colour, alpha=0.2
            )
        for name, one in calibration.get("populations", {}).items():
            points = {k: np.array(v) for k, v in one["curve"].items()}
            rate = np.where(points["fmr"] > 0, points["fmr"], np.nan)
            axes.plot(points["similarity"], rate, linewidth=0.8, label=f"FMR of {name}")
        supported = f"smallest FMR that the set supports, {calibration['smallest_fmr']:.2g}"
        axes.axhline(calibration["smallest_fmr"], color="grey", linestyle=":", label=supported)
        axes.set(yscale="log", ylim=(1e-6, 1.2), ylabel="rate")
        axes.set(xlabel="threshold on the similarity (cosine)")
        axes.set_title(
            f"{calibration['people']} people, {calibration['crops']} crops; "
            "bands: 95 %, bootstrap over people"
        )
        # Beside the axes: of many populations it would hide the curves.
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=7)
        axes.grid(alpha=0.3)


def draw_arms(
    panels: Mapping[str, Mapping[str, tuple[Sequence[float], tuple[float, float, float]]]],
    title: str,
    out: Path,
) -> None:
    """What the arms of an experiment reach: {panel: {arm: (values, (mean, low, high))}}.

    A dot a value, a bar for the interval (none where it is NaN), a stroke for the mean."""
    arms = list(next(iter(panels.values())))
    size = (4.6 * len(panels) + 1.2, 0.42 * len(arms) + 1.3)
    figure, grid = pyplot.subplots(
        1, len(panels), figsize=size, layout="constrained", sharey=True, squeeze=False
    )
    for axes, (name, found) in zip(grid.flat, panels.items(), strict=True):
        for row, (values, (mean, low, high)) in enumerate(found.values()):
            axes.plot([low, high], [row, row], color="#9dbbd8", linewidth=7, solid_capstyle="butt")
            axes.plot([mean], [row], marker="|", color="#1f5c99", markersize=15)
            axes.plot(values, [row] * len(values), "o", color="#1f5c99", markersize=4)
        axes.set_title(name, fontsize=10)
        axes.set_yticks(range(len(arms)), arms)
        axes.grid(alpha=0.3)
    grid.flat[0].invert_yaxis()
    figure.supxlabel(title, fontsize=9)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)
    pyplot.close(figure)


def draw_epochs(panels: Mapping[str, Mapping[str, Sequence[Sequence[float]]]], out: Path) -> None:
    """A figure epoch by epoch: {panel: {name: a row a run}}; thin lines are the runs, a thick one
    their mean."""
    size = (5.2 * len(panels), 3.8)
    figure, grid = pyplot.subplots(
        1, len(panels), figsize=size, layout="constrained", squeeze=False
    )
    for axes, (title, found) in zip(grid.flat, panels.items(), strict=True):
        for k, (name, runs) in enumerate(found.items()):
            epochs = np.arange(1, len(runs[0]) + 1)
            for run in runs:
                axes.plot(epochs, run, color=f"C{k}", alpha=0.3, linewidth=0.8)
            axes.plot(epochs, np.mean(runs, axis=0), color=f"C{k}", linewidth=2, label=name)
        axes.set(title=title, xlabel="epoch")
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right", fontsize=8)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)
    pyplot.close(figure)


def _shown(columns: Iterable[NDArray[np.float64]]) -> tuple[float, float]:
    """The part of a normal-deviate axis from the lowest rate that was seen, or 0.1 %, to 97 %."""
    low = min(1e-3, *(rates[rates > 0].min(initial=1) for rates in columns))
    return tuple(_deviates(np.array([low, 0.97])))


def _deviates(rates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quantiles of the normal distribution, of rates in (0, 1)."""
    normal = NormalDist()
    return np.array([normal.inv_cdf(float(rate)) for rate in rates])


def _percent(rate: float) -> str:
    return f"{100 * rate:g} %" if rate >= 1e-3 else f"{rate:.0e}".replace("e-0", "e-")


def draw_discard(figures: Mapping[str, Any], title: str, out: Path) -> None:
    """FNMR against the share discarded: of the score with its 95 % and the gates, and of each
    component. figures: of quality.lfw_discards."""
    share, whole = np.array(figures["curves"]["score"]["share"]), figures["fnmr"]
    figure, (left, right) = pyplot.subplots(
        1, 2, figsize=(11.5, 4.8), layout="constrained", sharey=True
    )
    score = figures["curves"]["score"]
    left.plot(share, score["fnmr"], color="C0", label="score, with 95 %")
    left.fill_between(share, score["fnmr_low"], score["fnmr_high"], color="C0", alpha=0.2)
    left.plot(share, figures["ideal"], "k--", label="no measure can do better")
    for k, (level, gate) in enumerate(figures["gates"].items(), 1):
        at, error = gate["comparisons_refused"], [[gate["fnmr"] - gate["fnmr_low"]]]
        error += [[gate["fnmr_high"] - gate["fnmr"]]]
        left.errorbar(at, gate["fnmr"], error, fmt="o", color=f"C{k}", capsize=3, label=level)
    for k, (name, curve) in enumerate(figures["curves"].items()):
        if name != "score":
            style = "-" if k < 10 else "--"  # ten colours, and then again
            right.plot(share, curve["fnmr"], f"C{k % 10}{style}", label=name, linewidth=1.2)
    for axes in (left, right):
        axes.axhline(whole, color="grey", linestyle=":", label="at random")
        axes.set(xlim=(0, share[-1]), xlabel="share of comparisons discarded")
        axes.grid(alpha=0.3)
    left.set(ylim=(0, None), ylabel=f"FNMR at the threshold of FMR {figures['fmr']:g}", title=title)
    right.set_title("each component alone")
    left.legend(fontsize=8)
    right.legend(fontsize=7)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)
    pyplot.close(figure)
