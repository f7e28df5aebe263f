"""Area means: every window's mean is what adding its pixels up gives."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.vision.area import AreaMeans, Windows
from service.vision.faces import Photograph


def plain_means(pixels, height, width):
    """Adaptive average pooling as its definition says, (3, height, width)."""
    rows, columns = pixels.shape[:2]
    means = np.empty((3, height, width))
    for i in range(height):
        top, bottom = i * rows // height, -(-(i + 1) * rows // height)
        for j in range(width):
            left, right = j * columns // width, -(-(j + 1) * columns // width)
            means[:, i, j] = pixels[top:bottom, left:right].mean(axis=(0, 1))
    return means


def noise(height, width, seed=0):
    rng = np.random.default_rng(seed)
    return Photograph(rng.integers(0, 256, (height, width, 3), np.uint8))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 50), st.integers(1, 50))
def test_a_grid_is_the_means_of_its_windows(rows, columns, height, width):
    photograph = noise(rows, columns)
    grid = AreaMeans(photograph).grid(
        Windows.over(0, rows, height), Windows.over(0, columns, width)
    )
    assert grid.shape == (1, 3, height, width)
    assert grid.dtype == np.float32
    expected = plain_means(photograph.pixels_rgb, height, width)
    np.testing.assert_allclose(grid[0], expected, rtol=1e-6)


def test_a_part_of_a_grid_is_that_part_of_the_whole():
    means = AreaMeans(noise(97, 61))
    rows, columns = Windows.over(0, 97, 50), Windows.over(0, 61, 70)
    part = means.grid(rows[20:41], columns[33:])
    # Sums are whole numbers, and a mean is one product of each: equal whatever the tile.
    np.testing.assert_array_equal(part, means.grid(rows, columns)[:, :, 20:41, 33:])


@given(st.data())
def test_crops_are_the_means_of_their_rectangles(data):
    photograph = noise(30, 40)
    side = data.draw(st.sampled_from([1, 7, 24]))
    corners = []
    for _ in range(data.draw(st.integers(0, 4))):
        x1, y1 = data.draw(st.integers(0, 39)), data.draw(st.integers(0, 29))
        corners.append(
            (x1, y1, data.draw(st.integers(x1 + 1, 40)), data.draw(st.integers(y1 + 1, 30)))
        )
    crops = AreaMeans(photograph).crops(np.array(corners, np.int64).reshape(-1, 4), side)
    assert crops.shape == (len(corners), 3, side, side)
    for crop, (x1, y1, x2, y2) in zip(crops, corners, strict=True):
        expected = plain_means(photograph.pixels_rgb[y1:y2, x1:x2], side, side)
        np.testing.assert_allclose(crop, expected, rtol=1e-6)


def test_sums_that_pass_the_range_of_int32_still_give_means():
    white = Photograph(np.full((3000, 3000, 3), 255, np.uint8))
    assert np.iinfo(np.int32).max < 3000 * 3000 * 255
    means = AreaMeans(white)
    windows = Windows.over(0, 3000, 13)
    crops = means.crops(np.array([[10, 20, 2900, 3000]]), 24)
    for pixels in (means.grid(windows, windows), crops):
        np.testing.assert_allclose(pixels, 255, rtol=1e-6)


def test_it_is_not_opencvs_area():
    photograph = noise(50, 50)
    means = AreaMeans(photograph)
    windows = Windows.over(0, 50, 31)
    other = cv2.resize(
        photograph.pixels_rgb.astype(np.float32), (31, 31), interpolation=cv2.INTER_AREA
    )
    assert np.abs(means.grid(windows, windows)[0] - other.transpose(2, 0, 1)).max() > 5


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1)])
def test_a_line_of_pixels_has_means_too(shape):
    photograph = noise(*shape)
    means = AreaMeans(photograph)
    whole = means.crops(np.array([[0, 0, shape[1], shape[0]]]), 24)
    expected = plain_means(photograph.pixels_rgb, 24, 24)
    np.testing.assert_allclose(whole[0], expected, rtol=1e-6)
