"""Micro-surgery: nought changes nothing, a face is never folded, and only the part meant moves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.surgery import (
    PROCEDURES,
    PROCEDURES_OF_ONE,
    SIDE,
    Surgery,
    displacement,
    operate,
    surgery_of,
)

CROP = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
STRENGTHS = st.fixed_dictionaries({name: st.floats(0, 1) for name in PROCEDURES})
# Boxes (left, top, right, bottom) that a procedure's part lies in, by eye on an average face.
PARTS = {
    "eyelids": (22, 41, 90, 63),
    "eyes": (22, 38, 90, 65),
    "bridge": (44, 38, 68, 74),
    "wings": (38, 61, 74, 86),
    "lips": (33, 80, 80, 105),
    "jaw": (0, 63, 112, 112),
    "chin": (25, 91, 88, 112),
}


def jacobians(surgery: Surgery) -> np.ndarray:
    """Determinants of the map p + d(p), by differences of neighbouring pixels."""
    moved = displacement(surgery)
    by_y, by_x = np.gradient(moved, axis=(0, 1))
    return (1 + by_x[..., 0]) * (1 + by_y[..., 1]) - by_x[..., 1] * by_y[..., 0]


def test_surgery_of_no_strength_changes_no_bit():
    np.testing.assert_array_equal(operate(CROP, Surgery()), CROP)


@settings(max_examples=40, deadline=None)
@given(strengths=STRENGTHS)
def test_a_face_is_never_folded_and_the_change_is_smooth(strengths):
    surgery = Surgery(**strengths)
    assert jacobians(surgery).min() > 0.3
    steps = np.diff(displacement(surgery), n=2, axis=0), np.diff(displacement(surgery), n=2, axis=1)
    assert max(np.abs(step).max() for step in steps) < 0.3  # of a pixel, between neighbours' slopes


@settings(max_examples=40, deadline=None)
@given(strengths=STRENGTHS, share=st.floats(0, 1))
def test_a_change_grows_in_proportion_to_its_strength(strengths, share):
    part = Surgery(**{name: share * value for name, value in strengths.items()})
    whole = share * displacement(Surgery(**strengths))
    np.testing.assert_allclose(displacement(part), whole, atol=1e-12)


@pytest.mark.parametrize("name", PROCEDURES)
def test_a_procedure_changes_its_part_and_nothing_else(name):
    left, top, right, bottom = PARTS[name]
    changed = (operate(CROP, Surgery(**{name: 1.0})) != CROP).any(axis=2)
    assert changed[top:bottom, left:right].sum() > 100
    changed[top:bottom, left:right] = False
    assert not changed.any()


@pytest.mark.parametrize("name", PROCEDURES)
def test_surgery_is_micro_but_no_nothing(name):
    longest = np.linalg.norm(displacement(Surgery(**{name: 1.0})), axis=-1).max()
    assert 0.8 < longest <= 4.5


@pytest.mark.parametrize(
    ("name", "point", "axis", "sign"),
    [
        ("eyelids", (38, 55), 1, -1),  # below the pupil: shows what lay nearer to it, so it opens
        ("eyes", (45, 52), 0, -1),
        ("bridge", (60, 57), 0, +1),  # right of the middle: shows what lay further out
        ("wings", (62, 74), 0, +1),
        ("lips", (56, 97), 1, -1),
        ("jaw", (22, 90), 0, -1),  # the left side: shows what lay further left
        ("jaw", (90, 90), 0, +1),
        ("chin", (56, 108), 1, -1),
    ],
)
def test_each_procedure_goes_the_way_that_it_says(name, point, axis, sign):
    x, y = point
    assert sign * displacement(Surgery(**{name: 1.0}))[y, x, axis] > 0.3


def test_a_surgery_is_its_persons_and_follows_from_the_seed():
    assert surgery_of(3, seed=1) == surgery_of(3, seed=1)
    others = {surgery_of(person, seed=seed) for person in range(20) for seed in (1, 2)}
    assert len(others) == 40
    for surgery in others:
        strengths = [getattr(surgery, name) for name in PROCEDURES if getattr(surgery, name)]
        assert len(strengths) == PROCEDURES_OF_ONE
        assert all(0.5 <= strength <= 1 for strength in strengths)


def test_the_crop_itself_is_left_alone():
    before = CROP.copy()
    assert (operate(CROP, surgery_of(0, seed=1)) != CROP).any()
    np.testing.assert_array_equal(CROP, before)


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_a_strength_outside_of_its_range_is_refused_by_name(strength):
    with pytest.raises(ValueError, match=r"jaw is .*; a strength is in"):
        Surgery(jaw=strength)


@pytest.mark.parametrize(
    "crop", [np.zeros((SIDE, SIDE), np.uint8), np.zeros((SIDE, SIDE, 3)), CROP[:96]]
)
def test_what_is_no_aligned_crop_is_refused(crop):
    with pytest.raises(ValueError, match="surgery takes an aligned crop"):
        operate(crop, Surgery())
