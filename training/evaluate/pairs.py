"""Verification over given pairs in folds, as LFW, CFP-FP, AgeDB-30, CALFW and CPLFW are measured.

The protocol is that of the LFW page (Huang et al. 2007): a fold's pairs are judged at the threshold
that is best on the others. P: pairs; a pair is accepted strictly above a threshold."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.calibration.measure import RULE_OF
from training.evaluate.bootstrap import widened
from training.evaluate.verification import supported

FOLDS = 10
FARS = {"1e1": 1e-1, "1e2": 1e-2, "1e3": 1e-3, "1e4": 1e-4}


@dataclass(frozen=True)
class Pairs:
    """Which two photographs each pair compares.

    photographs: (person, number from 1), each once. a_P, b_P: int64, places in `photographs`;
    same_P: bool; fold_P: int64 in [0, folds)."""

    photographs: list[tuple[str, int]]
    a_P: NDArray[np.int64]
    b_P: NDArray[np.int64]
    same_P: NDArray[np.bool_]
    fold_P: NDArray[np.int64]

    @cached_property
    def names(self) -> list[str]:
        """The photographs as LFW names its files: Ada/Ada_0001.jpg."""
        return [f"{who}/{who}_{number:04d}.jpg" for who, number in self.photographs]


def read_pairs(path: Path) -> Pairs:
    """pairs.txt in LFW's form: a header `folds n`, then for each fold n mated (name i j) and n
    non-mated (name i name j) lines.

    Raises ValueError, naming the line, for one of another form, and where lines are missing."""
    lines = path.read_text(encoding="utf-8").splitlines()
    header = lines[0].split() if lines else []
    if len(header) != 2 or not all(word.isdigit() and int(word) for word in header):
        raise ValueError(f"{path}, line 1: the numbers of folds and of pairs a fold are expected")
    rows = [_pair(path, number, line) for number, line in enumerate(lines[1:], 2) if line.strip()]
    folds, each = int(header[0]), 2 * int(header[1])
    if len(rows) != folds * each:
        raise ValueError(f"{path}: {folds} folds of {each} pairs are announced, {len(rows)} found")
    photographs = sorted({photograph for a, b, _ in rows for photograph in (a, b)})
    place = {photograph: i for i, photograph in enumerate(photographs)}
    return Pairs(
        photographs,
        np.array([place[a] for a, _, _ in rows]),
        np.array([place[b] for _, b, _ in rows]),
        np.array([same for *_, same in rows]),
        np.arange(len(rows)) // each,
    )


def _pair(path: Path, number: int, line: str) -> tuple[tuple[str, int], tuple[str, int], bool]:
    words = line.split("\t") if "\t" in line else line.split()
    same = len(words) == 3
    places = (1, 2) if same else (1, 3)
    if len(words) not in (3, 4) or not all(words[place].strip().isdigit() for place in places):
        raise ValueError(
            f"{path}, line {number}: `name i j` or `name i name j` is expected, not {line!r}"
        )
    first = (words[0], int(words[1]))
    return first, (words[0] if same else words[2], int(words[-1])), same


def contiguous_folds(count: int, folds: int = FOLDS) -> NDArray[np.int64]:
    """fold_P of a set whose pairs come in equal blocks, as in InsightFace's .bin files."""
    return np.arange(count) * folds // count


def similarities(embeddings_ND: NDArray[np.floating], pairs: Pairs) -> NDArray[np.float64]:
    """similarity_P, the cosines, of embeddings of unit length."""
    wide = embeddings_ND.astype(np.float64)
    return np.einsum("pd,pd->p", wide[pairs.a_P], wide[pairs.b_P])


def pair_figures(similarity_P: NDArray[np.float64], pairs: Pairs) -> dict[str, Any]:
    """Accuracy in folds with its standard error, TAR at FAR 1e-1 to 1e-4 over all pairs with 95 %
    over pairs, and the equal error rate.

    smallest_far: the lowest FAR that 30 non-mated pairs stand behind; one below it says little.
    standard_error: NaN where all folds agree, which shows no spread and not that there is none. A
    TAR that there are too few non-mated pairs for is NaN, and `unsupported` says so. Raises as
    require_both_kinds does."""
    require_both_kinds(pairs)
    same = pairs.same_P
    non_mated = int((~same).sum())
    right = ten_fold(similarity_P, pairs)
    by_fold = np.array([right[pairs.fold_P == f].mean() for f in np.unique(pairs.fold_P)])
    spread = by_fold.std(ddof=1)
    figures = {
        "pairs": len(right),
        "accuracy": float(by_fold.mean()),
        "standard_error": float(spread / np.sqrt(len(by_fold))) if spread else np.nan,
        "equal_error_rate": equal_error_rate(similarity_P[same], similarity_P[~same]),
        "smallest_far": min(1.0, RULE_OF / non_mated),
    }
    for suffix, far in FARS.items():
        name, tar, low, high = f"tar_at_far_{suffix}", np.nan, np.nan, np.nan
        if supported(far, non_mated):
            tar = tar_at_far(similarity_P, same, far)
            low, high = bootstrap_interval(similarity_P, same, far)
        figures |= {name: tar, f"{name}_low": low, f"{name}_high": high}
    if lacking := [f"{far:g}" for far in FARS.values() if not supported(far, non_mated)]:
        figures["unsupported"] = (
            f"TAR at FAR {', '.join(lacking)}: {non_mated} non-mated pairs cannot show it; "
            f"{lacking[-1]} takes {round(1 / float(lacking[-1])):,}"
        )
    return figures


def require_both_kinds(pairs: Pairs, of: str = "the pairs") -> None:
    """Raises ValueError for pairs that are all mated or all not, or in one fold, with the counts.

    of: what the error calls them."""
    mated, folds = int(pairs.same_P.sum()), len(np.unique(pairs.fold_P))
    non_mated = len(pairs.same_P) - mated
    if not mated or not non_mated or folds < 2:
        raise ValueError(
            f"{of}: verification needs mated and non-mated pairs in two folds or more; here are "
            f"{mated} mated and {non_mated} non-mated pairs, folds: {folds}"
        )


def failing_pairs(similarity_P: NDArray[np.float64], pairs: Pairs) -> list[str]:
    """The pairs judged wrongly, by name, those that look most wrong first: mated lowest, non-mated
    highest."""
    wrong = ~ten_fold(similarity_P, pairs)
    if not wrong.any():
        return []
    rows = [(abs(similarity_P[i] - similarity_P[wrong].mean()), i) for i in np.flatnonzero(wrong)]
    stem = lambda place: Path(pairs.names[place]).stem  # noqa: E731
    return [
        f"{'mated' if pairs.same_P[i] else 'non-mated'} {similarity_P[i]:.3f}: "
        f"{stem(pairs.a_P[i])}, {stem(pairs.b_P[i])}"
        for _, i in sorted(rows, reverse=True)
    ]


def ten_fold(similarity_P: NDArray[np.float64], pairs: Pairs) -> NDArray[np.bool_]:
    """Which pairs are judged rightly, each at the best threshold of the other folds."""
    right = np.zeros(len(similarity_P), bool)
    for fold in np.unique(pairs.fold_P):
        mine = pairs.fold_P == fold
        threshold = _best_threshold(similarity_P[~mine], pairs.same_P[~mine])
        right[mine] = (similarity_P[mine] > threshold) == pairs.same_P[mine]
    return right


def _best_threshold(similarity_P: NDArray[np.float64], same_P: NDArray[np.bool_]) -> float:
    """Half way between two neighbouring similarities, where the fewest are judged wrongly."""
    order = np.argsort(similarity_P)
    same = same_P[order]
    correct = same.sum() + np.concatenate([[0], np.cumsum(np.where(same, -1, 1))])
    cut = np.concatenate([[-2.0], similarity_P[order], [2.0]])
    k = int(correct.argmax())
    return float(cut[k] + cut[k + 1]) / 2


def tar_at_far(similarity_P: NDArray[np.float64], same_P: NDArray[np.bool_], far: float) -> float:
    """The share of mated pairs above the similarity that far of the non-mated pairs exceed."""
    non_mated = np.sort(similarity_P[~same_P])
    threshold = non_mated[-1 - int(far * len(non_mated))]
    return float((similarity_P[same_P] > threshold).mean())


def equal_error_rate(mated: NDArray[np.float64], non_mated: NDArray[np.float64]) -> float:
    """Where FMR and FNMR meet over all observed similarities, half way between the two."""
    grid = np.sort(np.concatenate([mated, non_mated]))
    miss = np.searchsorted(np.sort(mated), grid) / len(mated)
    false = 1 - np.searchsorted(np.sort(non_mated), grid) / len(non_mated)
    k = int(np.abs(miss - false).argmin())
    return float((miss[k] + false[k]) / 2)


def bootstrap_interval(
    similarity_P: NDArray[np.float64], same_P: NDArray[np.bool_], far: float, rounds: int = 300
) -> tuple[float, float]:
    """95 % of tar_at_far over pairs drawn with replacement, mated and non-mated apart; Wilson's
    over the mated pairs where all draws give the same."""
    rng = np.random.default_rng(0)
    mated, other = similarity_P[same_P], similarity_P[~same_P]
    labels = np.concatenate([np.ones(len(mated), bool), np.zeros(len(other), bool)])
    draws = [
        tar_at_far(
            np.concatenate([rng.choice(mated, len(mated)), rng.choice(other, len(other))]),
            labels,
            far,
        )
        for _ in range(rounds)
    ]
    low, high = np.quantile(draws, (0.025, 0.975))
    return widened(float(low), len(mated)) if low == high else (float(low), float(high))
