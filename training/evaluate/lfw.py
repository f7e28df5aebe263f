"""LFW's view 2: 6,000 pairs in ten folds, on crops aligned by the set's own landmarks.

A test set: nothing is trained or chosen on it. The protocol is that of the LFW page (Huang et al.
2007): a fold's pairs are judged at the threshold that is best on the nine others."""

import csv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from service.vision.align import align_crops
from service.vision.faces import Photograph

FOLDS, PAIRS_A_FOLD = 10, 600


@dataclass(frozen=True)
class Pairs:
    """a_P, b_P: int64, places in `names`; same_P: bool; fold_P: int64 in [0, 10)."""

    names: list[str]
    a_P: NDArray[np.int64]
    b_P: NDArray[np.int64]
    same_P: NDArray[np.bool_]
    fold_P: NDArray[np.int64]


def read_pairs(path: Path) -> Pairs:
    """pairs.txt: after a header, 300 mated (name i j) and 300 non-mated (name i name j) lines a
    fold.

    Raises ValueError, naming the line, for one of another form.
    """
    rows = []
    for number, line in enumerate(path.read_text().splitlines()[1:], 2):
        words = line.split()
        if len(words) not in (3, 4):
            raise ValueError(
                f"{path}, line {number}: three or four words are expected, not {line!r}"
            )
        first, second = (words[0], words[1]), (words[0] if len(words) == 3 else words[2], words[-1])
        rows.append(
            (*(f"{who}/{who}_{int(n):04d}.jpg" for who, n in (first, second)), len(words) == 3)
        )
    names = sorted({name for a, b, _ in rows for name in (a, b)})
    place = {name: i for i, name in enumerate(names)}
    return Pairs(
        names,
        np.array([place[a] for a, _, _ in rows]),
        np.array([place[b] for _, b, _ in rows]),
        np.array([same for *_, same in rows]),
        np.arange(len(rows)) // PAIRS_A_FOLD,
    )


def read_crops(folder: Path, names: list[str]) -> NDArray[np.uint8]:
    """Aligned crops uint8 (N, 112, 112, 3) RGB of photos.zip, by landmarks.csv."""
    keys = ("x1", "y1", "x2", "y2", "x3", "y3", "x4", "y4", "x5", "y5")
    with (folder / "landmarks.csv").open(newline="") as rows:
        landmarks = {
            row["path"]: np.array([float(row[k]) for k in keys]).reshape(5, 2)
            for row in csv.DictReader(rows)
        }
    crops = np.empty((len(names), 112, 112, 3), np.uint8)
    with zipfile.ZipFile(folder / "photos.zip") as photos:
        for i, name in enumerate(names):
            bgr = cv2.imdecode(np.frombuffer(photos.read(name), np.uint8), cv2.IMREAD_COLOR)
            photograph = Photograph(np.ascontiguousarray(bgr[:, :, ::-1]))
            crops[i] = align_crops(photograph, [landmarks[name]])[0]
    return crops


def ten_fold(similarity_P: NDArray[np.float64], pairs: Pairs) -> NDArray[np.bool_]:
    """Which pairs are judged rightly, each at the best threshold of the other nine folds."""
    right = np.zeros(len(similarity_P), bool)
    for fold in range(FOLDS):
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


def bootstrap_interval(
    similarity_P: NDArray[np.float64], same_P: NDArray[np.bool_], far: float, rounds: int = 300
) -> tuple[float, float]:
    """95 % of tar_at_far over pairs drawn with replacement, mated and non-mated apart."""
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
    return float(low), float(high)
