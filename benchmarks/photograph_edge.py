"""Fill beyond a photograph's edge that cuts a face: black, mirrored or repeated pixels.

    python -m benchmarks.photograph_edge GRAPH.onnx ... [--data ../shared/data] [--threads 2]

PROBES crops of each person of identities/validation are cut by a straight edge, at each side and
depth, filled in each way and compared with the whole crops of everybody, and with each other. A
pair matches above the similarity that is exceeded by FMR of the non-mated pairs of whole crops; or,
where a column says "own", by FMR of the row's own non-mated pairs, of a cut crop and a whole one.
Intervals of 95 %: bootstrap over people, thresholds taken anew in each round.

The landmarks are those of the whole crop: what a detector makes of a cut face is not measured here,
but by `python -m training quality --validation`, which the bounds of quality's gates come from.
Embeddings are kept under --runs, so that a broken run goes on where it stopped. Rewrites
benchmarks/results/photograph_edge.md.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import product
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.hardware import as_line, hardware
from training.data.crops import Crops, read_crops
from training.evaluate.bootstrap import draws, interval
from training.evaluate.embeddings import Network, open_networks
from training.evaluate.verification import require_pairs

RESULTS = Path(__file__).parent / "results"
FILLS = {
    "black": cv2.BORDER_CONSTANT,
    "mirrored": cv2.BORDER_REFLECT,
    "repeated": cv2.BORDER_REPLICATE,
}
SIDES = ("left", "right", "above", "below")
DEPTHS = (0.1, 0.2, 0.3)  # of the crop's width or height
PROBES = 3  # crops of each person that are cut
FMR = 1e-3
ROUNDS = 200
_KEPT = 0.05  # of non-mated pairs, at least: no row's own threshold lies below these

Rates = NDArray[np.float64]  # (1 + ROUNDS,): of everyone once, then of each round


@dataclass(frozen=True)
class Pairs:
    """Scored pairs of crops, falling; of non-mated ones the most similar alone.

    scores_K; first_K, second_K: the places of their people, second_K None where both are one.
    counts_PP: how many pairs there are of each two people, the others too."""

    scores_K: NDArray[np.float32]
    first_K: NDArray[np.int16]
    second_K: NDArray[np.int16] | None
    counts_PP: NDArray[np.int64]

    def above(self, threshold_R: Rates, weights_RP: NDArray[np.float64]) -> Rates:
        """The share of all pairs whose similarity is above each round's threshold."""
        counts_R = np.searchsorted(-self.scores_K, -threshold_R)
        matched_R = [
            self._weights(weights, count).sum()
            for weights, count in zip(weights_RP, counts_R, strict=True)
        ]
        return _ratio(np.array(matched_R), self._totals(weights_RP))

    def threshold(self, weights_RP: NDArray[np.float64]) -> Rates:
        """The similarity that at most FMR of each round's weight is above."""
        last = len(self.scores_K) - 1
        places = [
            min(int(np.searchsorted(np.cumsum(self._weights(weights)), FMR * total, "right")), last)
            for weights, total in zip(weights_RP, self._totals(weights_RP), strict=True)
        ]
        return self.scores_K[places]

    def _weights(
        self, weights_P: NDArray[np.float64], count: int | None = None
    ) -> NDArray[np.float64]:
        """Of the first `count` pairs: a mated one counts by its person's draws, another by the
        product of its two people's."""
        first_K = weights_P[self.first_K[:count]]
        return first_K if self.second_K is None else first_K * weights_P[self.second_K[:count]]

    def _totals(self, weights_RP: NDArray[np.float64]) -> Rates:
        if self.second_K is None:
            return weights_RP @ np.diag(self.counts_PP)
        return ((weights_RP @ self.counts_PP) * weights_RP).sum(1)


@dataclass(frozen=True)
class Compared:
    """The pairs of one way of cutting and filling.

    mated: a cut crop and another, whole one of its person. others: a cut crop and a whole one of
    somebody else. strangers: crops of two people, cut alike."""

    mated: Pairs
    others: Pairs
    strangers: Pairs


def cut(crops_NHWC: NDArray[np.uint8], side: str, depth: float, border: int) -> NDArray[np.uint8]:
    """The crops as if the photograph ended `depth` of their width (height) inside that side.

    border: what OpenCV puts beyond the edge."""
    height, width = crops_NHWC.shape[1:3]
    taken = round(depth * (width if side in ("left", "right") else height))
    margins = [taken * (side == name) for name in ("above", "below", "left", "right")]
    top, bottom, left, right = margins
    inside = crops_NHWC[:, top : height - bottom, left : width - right]
    return np.stack([cv2.copyMakeBorder(one, *margins, border, value=(0, 0, 0)) for one in inside])


def probes_of(labels_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """PROBES crops of each person, drawn, or all where there are fewer."""
    rng = np.random.default_rng(0)
    places = (np.flatnonzero(labels_N == person) for person in np.unique(labels_N))
    return np.concatenate([rng.permutation(of)[:PROBES] for of in places])


def compare(
    cut_MD: NDArray[np.float32],
    whole_ND: NDArray[np.float32],
    probes_M: NDArray[np.int64],
    labels_N: NDArray[np.int64],
    least: float,
) -> Compared:
    """The pairs of cut crops. probes_M: which of the whole crops each of them was. least: no
    similarity below it will be asked about but to find a threshold."""
    mine_M = labels_N[probes_M]
    same_MN = mine_M[:, None] == labels_N
    itself_MN = probes_M[:, None] == np.arange(len(labels_N))
    whole_MN, cut_MM = cut_MD @ whole_ND.T, cut_MD @ cut_MD.T
    apart_MM = np.triu(mine_M[:, None] != mine_M, 1)
    return Compared(
        _pairs(whole_MN, same_MN & ~itself_MN, mine_M, labels_N, mated=True),
        _pairs(whole_MN, ~same_MN, mine_M, labels_N, least=least),
        _pairs(cut_MM, apart_MM, mine_M, mine_M, least=least),
    )


def whole_pairs(whole_ND: NDArray[np.float32], labels_N: NDArray[np.int64]) -> Pairs:
    """The non-mated pairs of whole crops."""
    apart_NN = np.triu(labels_N[:, None] != labels_N, 1)
    return _pairs(whole_ND @ whole_ND.T, apart_NN, labels_N, labels_N)


def pooled(parts: Sequence[Compared]) -> Compared:
    """The pairs of several ways as those of one."""

    def join(pairs: Sequence[Pairs], *, mated: bool = False) -> Pairs:
        scores = np.concatenate([one.scores_K for one in pairs])
        first = np.concatenate([one.first_K for one in pairs])
        second = np.concatenate([one.first_K if mated else one.second_K for one in pairs])
        falling = np.argsort(-scores, kind="stable")
        if not mated:  # below the highest of the least that were kept, some are missing
            least = max(one.scores_K[-1] for one in pairs)
            falling = falling[scores[falling] >= least]
        return Pairs(
            scores[falling],
            first[falling],
            None if mated else second[falling],
            np.sum([one.counts_PP for one in pairs], axis=0),
        )

    return Compared(
        join([one.mated for one in parts], mated=True),
        join([one.others for one in parts]),
        join([one.strangers for one in parts]),
    )


def _pairs(
    scores: NDArray[np.float32],
    chosen: NDArray[np.bool_],
    row_people: NDArray[np.int64],
    column_people: NDArray[np.int64],
    *,
    mated: bool = False,
    least: float = 1.0,
) -> Pairs:
    """The chosen pairs of a matrix; non-mated ones are kept from `least` on, and some more."""
    rows, columns = np.nonzero(chosen)
    first, second, found = row_people[rows], column_people[columns], scores[chosen]
    people = int(max(row_people.max(), column_people.max())) + 1
    counts_PP = np.bincount(first * people + second, minlength=people**2).reshape(people, people)
    falling = np.argsort(-found, kind="stable")
    if not mated:
        kept = max(1, round(_KEPT * len(found)), int((found >= least).sum()))
        falling = falling[:kept]
    return Pairs(
        found[falling],
        first[falling].astype(np.int16),
        None if mated else second[falling].astype(np.int16),
        counts_PP,
    )


def page_of(network: Network, people: Crops, probes_M: NDArray[np.int64]) -> str:
    """The tables of one graph, in markdown."""
    labels, pixels = people.labels_N, np.asarray(people.pixels_NHWC[:])
    weights_RP = draws(len(people.people), rounds=ROUNDS)
    whole = network.embeddings(pixels)
    threshold_R = whole_pairs(whole, labels).threshold(weights_RP)
    least = float(threshold_R.min())
    uncut = compare(whole[probes_M], whole, probes_M, labels, least)
    found = {}
    for fill, side, depth in product(FILLS, SIDES, DEPTHS):
        embeddings = network.embeddings(cut(pixels[probes_M], side, depth, FILLS[fill]))
        found[fill, side, depth] = compare(embeddings, whole, probes_M, labels, least)
    heads = ("cut", "beyond it", "TAR", "TAR, own", "own, less that of black")
    heads = (*heads, "others match", "strangers cut alike match")
    lines = [
        f"## {network.name}",
        "",
        f"sha256 {network.sha256[:12]}. Similarity of FMR {FMR:g} on whole crops: "
        f"{_interval(threshold_R, 1, 3)}.",
        "",
        _row(*heads),
        _row(*["---"] * len(heads)),
        _row("nothing", "", *_cells(uncut, threshold_R, weights_RP)),
    ]
    groups = [("any", SIDES, DEPTHS)]
    groups += [(f"{depth:.0%}, any side", SIDES, (depth,)) for depth in DEPTHS]
    groups += [(f"{side}, any depth", (side,), DEPTHS) for side in SIDES]
    for name, sides, depths in groups:
        black: Rates | None = None
        for fill in FILLS:
            row = pooled([found[fill, side, depth] for side, depth in product(sides, depths)])
            own_R = row.mated.above(row.others.threshold(weights_RP), weights_RP)
            lines.append(_row(name, fill, *_cells(row, threshold_R, weights_RP, black)))
            black = own_R if black is None else black
    lines += ["", "True matches left, of those of the same crops uncut:", ""]
    lines += [_row("cut", *FILLS), _row(*["---"] * (1 + len(FILLS)))]
    before_R = uncut.mated.above(threshold_R, weights_RP)
    for side, depth in product(SIDES, DEPTHS):
        after = (found[fill, side, depth].mated.above(threshold_R, weights_RP) for fill in FILLS)
        left = [_ratio(after_R, before_R) for after_R in after]
        lines.append(_row(f"{side} {depth:.0%}", *(_interval(one, 1, 3) for one in left)))
    return "\n".join(lines) + "\n"


def _cells(
    row: Compared,
    threshold_R: Rates,
    weights_RP: NDArray[np.float64],
    black_R: Rates | None = None,
) -> list[str]:
    own_R = row.mated.above(row.others.threshold(weights_RP), weights_RP)
    return [
        _interval(row.mated.above(threshold_R, weights_RP), 100, 1),
        _interval(own_R, 100, 1),
        "" if black_R is None else _interval(own_R - black_R, 100, 1),
        _interval(row.others.above(threshold_R, weights_RP), 100, 2),
        _interval(row.strangers.above(threshold_R, weights_RP), 100, 2),
    ]


def _ratio(part_R: Rates, whole_R: Rates) -> Rates:
    """part / whole; NaN in a round that has nothing to be a share of."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return part_R / whole_R


def _interval(values_R: Rates, times: float, digits: int) -> str:
    low, high = interval(values_R)
    first, low, high = (f"{value * times:.{digits}f}" for value in (values_R[0], low, high))
    return f"{first} ({low} to {high})"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("graphs", nargs="+", type=Path, metavar="GRAPH.onnx")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS / "photograph_edge.md")
    given = parser.parse_args()
    facts = hardware("onnxruntime", "numpy", "opencv-python-headless")
    people = read_crops(given.data / "identities" / "validation.csv", given.runs / "cache")
    require_pairs(people.labels_N, "identities/validation")
    probes_M = probes_of(people.labels_N)
    networks = open_networks(given.graphs, given.runs / "cache", threads=given.threads)
    pages = [page_of(network, people, probes_M) for network in networks]
    command = shlex.join(["python", "-m", "benchmarks.photograph_edge", *sys.argv[1:]])
    given.out.write_text(
        "# What to put beyond the edge of a photograph that cuts a face\n\n"
        f"`{command}`, {date.today()}\n\n"
        f"{len(people.people)} people of identities/validation, {len(people)} crops; "
        f"{len(probes_M)} of them cut. Percent, with 95 % over people. TAR at FAR {FMR:g}, by the "
        "threshold of whole crops, and by the row's own; and how often, by the threshold of whole "
        "crops, a cut crop matches a whole one of somebody else, and one of somebody else that is "
        "cut and filled alike.\n\n" + "\n".join(pages) + f"\n{as_line(facts)}\n"
    )
    print(given.out.read_text())


if __name__ == "__main__":
    main()
