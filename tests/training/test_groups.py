"""False matches among strangers by group, against loops over pairs."""

from itertools import combinations

import numpy as np
import pytest

from tests.training.people import people
from training.evaluate.bootstrap import draws, interval
from training.evaluate.groups import FEWEST, false_matches, group_fmr, utkface_groups

ROWS, _ = people(120, 1, 0.0)
THRESHOLD = 0.25


def drawn_groups() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    sex = rng.choice(["male", "female"], 120)
    age = rng.choice(["0-9", "20-39", ""], 120, p=[0.5, 0.4, 0.1])
    return {"sex": sex, "age": age}


def counted(one: np.ndarray, two: np.ndarray, weights: np.ndarray) -> tuple[int, float]:
    """(false matches, FMR) of the pairs between two groups, each pair once."""
    matched, false, total = 0, 0.0, 0.0
    for i, j in combinations(range(120), 2):
        if (one[i] and two[j]) or (one[j] and two[i]):
            weight = weights[i] * weights[j]
            total += weight
            if ROWS[i] @ ROWS[j] >= THRESHOLD:
                matched, false = matched + 1, false + weight
    return matched, false / total


def test_rates_within_and_across_groups_are_those_of_counting_pairs():
    groups, weights = drawn_groups(), draws(120, rounds=3)
    found = group_fmr(false_matches(ROWS, THRESHOLD, block=50), groups, rounds=3)
    male, female = groups["sex"] == "male", groups["sex"] == "female"
    both = male & (groups["age"] == "20-39")
    everyone = np.ones(120, bool)
    for row, one, two in (
        (found["all"]["all"], everyone, everyone),
        (found["sex"]["male"], male, male),
        (found["across sex"]["female with male"], female, male),
        (found["age"]["0-9"], groups["age"] == "0-9", groups["age"] == "0-9"),
    ):
        rounds = [counted(one, two, row_of_weights) for row_of_weights in weights]
        assert row["false_matches"] == rounds[0][0]
        assert row["fmr"] == pytest.approx(rounds[0][1])
        expected = interval(np.array([rate for _, rate in rounds]))
        assert (row["fmr_low"], row["fmr_high"]) == pytest.approx(expected)
    assert found["sex and age"]["male, 20-39"]["people"] == both.sum()


def test_a_small_group_is_counted_but_given_no_rate():
    sex = np.array(["male"] * (121 - FEWEST) + ["female"] * (FEWEST - 1))
    found = group_fmr(false_matches(ROWS, THRESHOLD), {"sex": sex}, rounds=2)
    assert "fmr" not in found["sex"]["female"]
    assert "fmr" not in found["across sex"]["female with male"]
    assert found["sex"]["female"]["people"] == FEWEST - 1
    assert "fmr" in found["sex"]["male"]


def test_nobody_is_compared_with_themself():
    alike = np.tile(ROWS[:1], (40, 1))
    matched = false_matches(alike, 0.99)
    assert len(matched.first_M) == 40 * 39 / 2
    assert group_fmr(matched, {}, rounds=2)["all"]["all"]["fmr"] == 1


def test_utkfaces_names_are_read_and_those_of_another_form_belong_nowhere():
    paths = ["utk/25_1_2_20170116174525125.webp", "9_0_4_2017.jpg.chip.jpg", "61_1_2017.webp"]
    groups = utkface_groups([*paths, "25_3_0_2017.webp", "130_0_0_2017.webp"])
    assert groups["sex"].tolist() == ["female", "male", "", "", ""]
    assert groups["age"].tolist() == ["20-39", "0-9", "", "", ""]
    assert groups["ethnicity"].tolist() == ["asian", "other", "", "", ""]
