"""False matches between strangers, by group: whom the same threshold protects less.

Each crop is taken for another person, so every pair is a non-mated comparison. Pairs within a
group give its FMR; pairs across two groups theirs. That the error differs between groups, by
factors up to a hundred, is what NISTIR 8280 (2019) measured on many algorithms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.evaluate.bootstrap import ROUNDS, draws, measured

SEXES = ("male", "female")
ETHNICITIES = ("white", "black", "asian", "indian", "other")
BANDS = ((0, 9), (10, 19), (20, 39), (40, 59), (60, 116))
FEWEST = 30  # people; smaller groups are counted but given no rate


@dataclass(frozen=True)
class Pairings:
    """The pairs of crops (i, j), i < j, that a threshold falsely matches, and of how many crops."""

    first_M: NDArray[np.int64]
    second_M: NDArray[np.int64]
    crops: int


def utkface_groups(paths: Sequence[str]) -> dict[str, NDArray[np.str_]]:
    """{attribute: each crop's group} from UTKFace's file names, age_sex_ethnicity_date; "" where a
    name does not tell.

    The codes are those of the set's page: sex 0 male, 1 female; ethnicity 0 white, 1 black, 2
    asian, 3 indian, 4 other (as Hispanic, Latino, Middle Eastern). They are others' guesses."""
    rows = [_utkface(path) for path in paths]
    sex, age, ethnicity = (np.array(column) for column in zip(*rows, strict=True))
    return {"sex": sex, "age": age, "ethnicity": ethnicity}


def utkface_labels(path: str) -> tuple[int, int, int] | None:
    """Age, sex and ethnicity by UTKFace's codes from a file's name; None where it does not tell."""
    words = PurePath(path).name.split(".")[0].split("_")
    if len(words) != 4 or not all(word.isdigit() for word in words[:3]):
        return None
    age, sex, ethnicity = (int(word) for word in words[:3])
    if sex >= len(SEXES) or ethnicity >= len(ETHNICITIES) or age > BANDS[-1][1]:
        return None
    return age, sex, ethnicity


def _utkface(path: str) -> tuple[str, str, str]:
    if (labels := utkface_labels(path)) is None:
        return "", "", ""
    age, sex, ethnicity = labels
    band = next(f"{low}-{high}" for low, high in BANDS if low <= age <= high)
    return SEXES[sex], band, ETHNICITIES[ethnicity]


def false_matches(
    embeddings_ND: NDArray[np.float32], threshold: float, block: int = 512
) -> Pairings:
    """The pairs at or above the threshold, as the service decides."""
    first, second = [], []
    for start in range(0, len(embeddings_ND), block):
        similarity = embeddings_ND[start : start + block] @ embeddings_ND[start:].T
        i, j = np.nonzero(np.triu(similarity >= threshold, 1))
        first.append(i + start)
        second.append(j + start)
    return Pairings(np.concatenate(first), np.concatenate(second), len(embeddings_ND))


def group_fmr(
    matched: Pairings,
    groups: Mapping[str, NDArray[np.str_]],
    *,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> dict[str, Any]:
    """FMR over all crops, within each group of each attribute and of each two attributes together,
    and across each two groups of one attribute; 95 % over people.

    groups: {attribute: (crops,) names}, "" for a crop that belongs to none."""
    weights_RN = draws(matched.crops, rounds=rounds, seed=seed)
    everyone = np.full(matched.crops, "all")
    figures: dict[str, Any] = {"all": _within(matched, everyone, weights_RN)}
    for name, group_N in groups.items():
        figures[name] = _within(matched, group_N, weights_RN)
        figures[f"across {name}"] = _across(matched, group_N, weights_RN)
    for (name, one_N), (other, two_N) in combinations(groups.items(), 2):
        known = (one_N != "") & (two_N != "")
        joint = np.char.add(np.char.add(one_N, ", "), two_N)
        figures[f"{name} and {other}"] = _within(matched, np.where(known, joint, ""), weights_RN)
    return figures


def _within(
    matched: Pairings, group_N: NDArray[np.str_], weights_RN: NDArray[np.float64]
) -> dict[str, Any]:
    return {
        group: _row(matched, members, members, weights_RN)
        for group in np.unique(group_N[group_N != ""]).tolist()
        for members in (group_N == group,)
    }


def _across(
    matched: Pairings, group_N: NDArray[np.str_], weights_RN: NDArray[np.float64]
) -> dict[str, Any]:
    names = np.unique(group_N[group_N != ""]).tolist()
    return {
        f"{one} with {two}": _row(matched, group_N == one, group_N == two, weights_RN)
        for one, two in combinations(names, 2)
    }


def _row(
    matched: Pairings,
    one_N: NDArray[np.bool_],
    two_N: NDArray[np.bool_],
    weights_RN: NDArray[np.float64],
) -> dict[str, Any]:
    """Counts and FMR of the pairs between two groups, or within one where both are the same."""
    same = bool((one_N == two_N).all())
    i, j = matched.first_M, matched.second_M
    chosen = (one_N[i] & two_N[j]) | (one_N[j] & two_N[i])
    i, j = i[chosen], j[chosen]
    people = [int(one_N.sum())] if same else [int(one_N.sum()), int(two_N.sum())]
    row = {"people": sum(people), "false_matches": len(i)}
    if min(people) < FEWEST:
        return row
    false_R = np.array([weights_N[i] @ weights_N[j] for weights_N in weights_RN])
    return row | measured("fmr", false_R / _weight(weights_RN, one_N, two_N, same=same))


def _weight(
    weights_RN: NDArray[np.float64],
    one_N: NDArray[np.bool_],
    two_N: NDArray[np.bool_],
    *,
    same: bool,
) -> NDArray[np.float64]:
    """(R,): the weight of all pairs, none of a crop with itself."""
    one_R = weights_RN[:, one_N].sum(1)
    if same:
        return (one_R**2 - (weights_RN[:, one_N] ** 2).sum(1)) / 2
    return one_R * weights_RN[:, two_N].sum(1)
