"""Faces made smaller: what is lost, and where the bound comes from."""

import numpy as np
import pytest

from service.vision.align import IDENTITY_CANVAS, WIDE_CANVAS, align_crops
from service.vision.faces import Photograph
from tests.training.crops import drawn_crops
from training.evaluate.face_size import (
    at_size,
    crops_at_size,
    faces_of_crops,
    inter_eye_px,
    size_curve,
    smallest_size,
)

CROP = drawn_crops(people=1, each=1).pixels_NHWC[0]
FULL_PX = inter_eye_px(IDENTITY_CANVAS.template_52)


def photograph() -> tuple[np.ndarray, np.ndarray]:
    """A face upright in the middle of a larger photograph, eyes 44 px apart."""
    x = np.arange(260)
    wave = np.sin(x[:, None] / 9) * np.cos(x[None] / 7)
    pixels = np.repeat((128 + 100 * wave)[..., None], 3, axis=2).astype(np.uint8)
    return pixels, IDENTITY_CANVAS.template_52 * 1.25 + 60


def detail(crop):
    return np.abs(np.diff(crop.astype(float), axis=1)).mean()


def test_a_face_at_full_size_is_the_services_own_crop():
    pixels, landmarks = photograph()
    [wanted] = align_crops(Photograph(pixels), [landmarks], WIDE_CANVAS)
    for size in (None, 500):
        np.testing.assert_allclose(at_size((pixels, landmarks), WIDE_CANVAS, size), wanted, atol=1)


@pytest.mark.parametrize("size", [11, 22])
def test_a_smaller_face_lies_where_it_lay_with_less_detail(size):
    face = photograph()
    whole, small = (at_size(face, IDENTITY_CANVAS, s).astype(float) for s in (None, size))
    assert detail(small) < detail(whole)
    # Moved by a pixel in any direction it fits less: nothing was shifted on the way.
    moved = [np.roll(small, step, axis)[8:-8, 8:-8] for axis in (0, 1) for step in (-1, 1)]
    inside = np.abs(whole - small)[8:-8, 8:-8].mean()
    assert all(np.abs(whole[8:-8, 8:-8] - other).mean() > inside for other in moved)


def test_the_edge_of_a_crop_is_repeated_and_not_black():
    white = np.full((112, 112, 3), 255, np.uint8)
    face = faces_of_crops(white[None], IDENTITY_CANVAS.template_52)(0)
    assert at_size(face, IDENTITY_CANVAS, 8).min() == 255


def test_crops_are_photographs_with_the_canvas_own_landmarks():
    face = faces_of_crops(CROP[None, ..., 0], IDENTITY_CANVAS.template_52)
    crops = crops_at_size(face, 1, IDENTITY_CANVAS)
    assert crops.shape == (1, 112, 112, 3)
    np.testing.assert_array_equal(crops[0], np.repeat(CROP[..., :1], 3, axis=2))


def rows(*accuracies):
    return [{"inter_eye_px": 4.0 * i, "accuracy": a} for i, a in enumerate(accuracies, 1)]


def test_the_smallest_size_is_the_last_before_the_figure_falls():
    assert smallest_size(rows(0.5, 0.76, 0.79, 0.8), "accuracy") == 8
    assert smallest_size(rows(0.8, 0.8, 0.8), "accuracy") == 4
    assert smallest_size(rows(0.5, 0.76, 0.79, 0.8), "accuracy", within=0.02) == 12


def test_a_size_below_one_that_is_too_small_does_not_count():
    assert smallest_size(rows(0.79, 0.6, 0.79, 0.8), "accuracy") == 12


def test_where_every_smaller_size_costs_too_much_the_bound_is_the_full_size():
    assert smallest_size(rows(0.5, 0.6, 0.8), "accuracy") == 12


def test_the_curve_has_sizes_that_make_faces_smaller_and_the_faces_as_they_are():
    face = faces_of_crops(CROP[None], IDENTITY_CANVAS.template_52)
    measure = lambda crops: {"detail": detail(crops[0])}  # noqa: E731
    found = size_curve(face, 1, IDENTITY_CANVAS, measure, sizes_px=(6, 12, 24, 35, 48))
    assert [row["inter_eye_px"] for row in found] == [6, 12, 24, round(FULL_PX, 1)]
    details = [row["detail"] for row in found]
    assert details == sorted(details)
