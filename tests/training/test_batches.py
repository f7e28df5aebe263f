"""Batches follow from seed and step alone."""

import numpy as np

from tests.training.crops import drawn_crops
from training.data.batches import augment, batches


def seen(start: int, stop: int, seed: int = 1) -> list[tuple[int, bytes, list[int]]]:
    pixels = drawn_crops(people=3, each=3).pixels_NHWC
    return [
        (step, batch.pixels_NHWC.tobytes(), batch.indices_N.tolist())
        for step, batch in batches(pixels, size=4, start=start, stop=stop, seed=seed)
    ]


def test_a_run_that_starts_later_sees_what_the_whole_run_sees():
    assert seen(0, 6)[3:] == seen(3, 6)


def test_another_seed_sees_another_order():
    assert [row[2] for row in seen(0, 3)] != [row[2] for row in seen(0, 3, seed=2)]


def test_every_crop_is_seen_once_before_any_is_seen_twice():
    places = [i for _, _, indices in seen(0, 9) for i in indices]
    for epoch in range(4):
        assert sorted(places[9 * epoch : 9 * epoch + 9]) == list(range(9))


def test_augmentation_keeps_shape_and_type_and_leaves_the_crop_alone():
    crop = drawn_crops(people=1, each=1).pixels_NHWC[0]
    before = crop.copy()
    for seed in range(200):
        changed = augment(crop, np.random.default_rng(seed))
        assert (changed.shape, changed.dtype) == (crop.shape, np.uint8)
    np.testing.assert_array_equal(crop, before)
