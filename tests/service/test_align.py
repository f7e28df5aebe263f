"""Alignment: the transform is the least-squares similarity, the crops are the yardstick's."""

import csv
import importlib.util
import zipfile

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.vision.align import (
    EXPRESSION_CANVAS,
    IDENTITY_CANVAS,
    WIDE_CANVAS,
    align_crops,
    share_outside,
    similarity_transform,
)
from service.vision.faces import Photograph
from tests.shared import SHARED, needs_shared

TEMPLATE_52 = IDENTITY_CANVAS.template_52


def moved(points, matrix):
    return points @ matrix[:, :2].T + matrix[:, 2]


def noise(height, width, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Photograph(cv2.GaussianBlur(pixels, (5, 5), 0))


@given(
    angle=st.floats(-np.pi, np.pi),
    scale=st.floats(0.05, 20),
    shift=st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)),
)
def test_a_similarity_is_found_again(angle, scale, shift):
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.hstack([scale * rotation, np.array(shift)[:, None]])
    source = (TEMPLATE_52 - shift) @ rotation / scale
    np.testing.assert_allclose(similarity_transform(source, TEMPLATE_52), matrix, atol=1e-6)


def test_no_nearby_similarity_fits_noisy_points_better():
    rng = np.random.default_rng(1)
    source = TEMPLATE_52 * 1.7 + rng.normal(0, 4, (5, 2))
    matrix = similarity_transform(source, TEMPLATE_52)

    def error(a, b, x, y):
        other = np.array([[a, -b, x], [b, a, y]])
        return ((moved(source, other) - TEMPLATE_52) ** 2).sum()

    best = (matrix[0, 0], matrix[1, 0], matrix[0, 2], matrix[1, 2])
    for step in rng.normal(0, 1e-3, (200, 4)):
        assert error(*(best + step)) >= error(*best)


def test_a_mirrored_face_is_turned_but_never_mirrored():
    mirrored = TEMPLATE_52 * (-1, 1)
    assert np.linalg.det(similarity_transform(mirrored, TEMPLATE_52)[:, :2]) > 0


@pytest.mark.parametrize("points", [np.zeros((5, 2)), np.full((5, 2), 7.5)])
def test_points_that_coincide_are_moved_onto_the_templates_middle(points):
    matrix = similarity_transform(points, TEMPLATE_52)
    np.testing.assert_allclose(moved(points, matrix), np.tile(TEMPLATE_52.mean(axis=0), (5, 1)))


def test_points_on_a_line_give_a_finite_similarity():
    line = np.stack([np.arange(5.0), np.arange(5.0)], axis=1)
    matrix = similarity_transform(line, TEMPLATE_52)
    assert np.isfinite(matrix).all()
    assert np.linalg.det(matrix[:, :2]) > 0


def test_a_landmark_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="finite"):
        similarity_transform(np.full((5, 2), np.nan), TEMPLATE_52)


@pytest.mark.parametrize("canvas", [IDENTITY_CANVAS, WIDE_CANVAS, EXPRESSION_CANVAS])
def test_a_face_that_lies_as_in_the_template_is_copied(canvas):
    photograph = noise(136, 112)
    [crop] = align_crops(photograph, [canvas.template_52], canvas)
    assert crop.shape == (canvas.height, canvas.width, 3)
    np.testing.assert_array_equal(crop, photograph.pixels_rgb[: canvas.height, : canvas.width])


def test_what_lies_outside_the_photograph_is_black():
    white = Photograph(np.full((112, 112, 3), 255, np.uint8))
    [crop] = align_crops(white, [TEMPLATE_52 - (30, 0)])
    assert (crop[:, :29] == 0).all()
    assert (crop[:, 31:] == 255).all()


@pytest.mark.parametrize("canvas", [IDENTITY_CANVAS, WIDE_CANVAS])
@settings(deadline=None)
@given(
    angle=st.floats(-np.pi, np.pi),
    scale=st.floats(0.3, 3),
    shift=st.tuples(st.floats(-90, 180), st.floats(-90, 180)),
)
def test_the_share_outside_the_photograph_is_that_of_the_crop_s_black(canvas, angle, scale, shift):
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    landmarks = (canvas.template_52 - 56) @ turn * scale + shift
    white = Photograph(np.full((120, 90, 3), 255, np.uint8))
    [crop] = align_crops(white, [landmarks], canvas)
    share = share_outside(white, landmarks, canvas)
    assert share == pytest.approx((crop < 128).mean(), abs=0.01)


def test_landmarks_in_one_point_have_a_share_outside_too():
    white = Photograph(np.full((112, 112, 3), 255, np.uint8))
    assert share_outside(white, np.full((5, 2), 1e4)) == 1
    assert 0 <= share_outside(white, np.zeros((5, 2))) <= 1


def test_the_identity_crop_lies_inside_the_wide_one():
    landmarks = TEMPLATE_52 * 2.5 + (40, 60)
    photograph = noise(500, 500)
    [identity], [wide] = (
        align_crops(photograph, [landmarks], canvas) for canvas in (IDENTITY_CANVAS, WIDE_CANVAS)
    )
    shrunk = cv2.resize(identity, None, fx=0.68, fy=0.68, interpolation=cv2.INTER_AREA)
    part = wide[33 : 33 + shrunk.shape[0], 18 : 18 + shrunk.shape[1]].astype(int)
    assert np.abs(part - shrunk).mean() < 12  # 9 here, 15 one pixel off


@pytest.mark.parametrize("side", [112, 224])
def test_a_scaled_canvas_gives_the_crop_resized(side):
    photograph = Photograph(cv2.GaussianBlur(noise(48, 48).pixels_rgb, (0, 0), 2))
    canvas = EXPRESSION_CANVAS.scaled(side)
    [crop] = align_crops(photograph, [EXPRESSION_CANVAS.template_52], canvas)
    resized = cv2.resize(photograph.pixels_rgb, (side, side))
    inside = slice(side // 48 + 1, -side // 48 - 1)  # beyond the outermost pixels it is black
    assert crop.shape == resized.shape
    assert np.abs(crop.astype(int) - resized)[inside, inside].max() <= 2


def test_several_faces_are_aligned_as_each_alone():
    photograph = noise(300, 400)
    faces = [TEMPLATE_52 * scale + shift for scale, shift in ((1, 5), (2, 30), (0.4, 200))]
    together = align_crops(photograph, faces)
    for crop, face in zip(together, faces, strict=True):
        np.testing.assert_array_equal(crop, align_crops(photograph, [face])[0])


def test_no_face_gives_no_crop():
    assert align_crops(noise(20, 20), []).shape == (0, 112, 112, 3)


def test_a_face_far_down_a_very_long_photograph_is_found():
    pixels = np.zeros((40_000, 112, 3), np.uint8)
    pixels[39_000:39_112] = noise(112, 112).pixels_rgb
    [crop] = align_crops(Photograph(pixels), [TEMPLATE_52 + np.array([0, 39_000])])
    np.testing.assert_array_equal(crop, pixels[39_000:39_112])


@pytest.mark.filterwarnings("ignore:unclosed file", "ignore:Exception ignored in")  # the check's
@needs_shared("checks/accuracy.py", "data/lfw/photos.zip")
def test_crops_are_those_of_the_independent_check():
    spec = importlib.util.spec_from_file_location("accuracy", SHARED / "checks" / "accuracy.py")
    accuracy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(accuracy)
    folder = SHARED / "data" / "lfw"
    with (folder / "landmarks.csv").open() as file:
        rows = [row for _, row in zip(range(40), csv.DictReader(file), strict=False)]
    expected = accuracy.crops(folder, [row["path"] for row in rows])
    with zipfile.ZipFile(folder / "photos.zip") as photos:
        for row, crop in zip(rows, expected, strict=True):
            data = np.frombuffer(photos.read(row["path"]), np.uint8)
            pixels = np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[:, :, ::-1])
            landmarks = np.array([[row[f"x{i}"], row[f"y{i}"]] for i in range(1, 6)], np.float64)
            [mine] = align_crops(Photograph(pixels), [landmarks])
            assert np.abs(mine.astype(int) - crop).max() <= 1
