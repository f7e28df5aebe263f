"""Batches follow from seed, step and place alone."""

import threading

import numpy as np
import pytest

from tests.training.crops import drawn_crops
from training.data.augment import LEVELS
from training.data.batches import batches
from training.data.pixels import LazyPixels

PIXELS = drawn_crops(people=3, each=3).pixels_NHWC


def seen(start, stop, *, seed=1, pixels=PIXELS, **more) -> list[tuple[int, bytes, list[int]]]:
    return [
        (step, batch.pixels_NHWC.tobytes(), batch.indices_N.tolist())
        for step, batch in batches(pixels, size=4, start=start, stop=stop, seed=seed, **more)
    ]


def test_a_run_that_starts_later_sees_what_the_whole_run_sees():
    assert seen(0, 6)[3:] == seen(3, 6)


def test_another_seed_sees_another_order():
    assert [row[2] for row in seen(0, 3)] != [row[2] for row in seen(0, 3, seed=2)]


def test_every_crop_is_seen_once_before_any_is_seen_twice():
    places = [i for _, _, indices in seen(0, 9) for i in indices]
    for epoch in range(4):
        assert sorted(places[9 * epoch : 9 * epoch + 9]) == list(range(9))


def test_ranks_see_between_them_the_very_crops_that_one_process_sees():
    whole = batches(PIXELS, size=4, start=0, stop=3, seed=1)
    parts = [batches(PIXELS, size=4, start=0, stop=3, seed=1, part=(r, 2)) for r in range(2)]
    for (_, one), (_, first), (_, second) in zip(whole, *parts, strict=True):
        np.testing.assert_array_equal(one.pixels_NHWC[0::2], first.pixels_NHWC)
        np.testing.assert_array_equal(one.pixels_NHWC[1::2], second.pixels_NHWC)
        np.testing.assert_array_equal(one.indices_N[1::2], second.indices_N)


def test_pictures_decoded_in_several_threads_are_the_same_in_the_same_order(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2})
    threads, together = set(), threading.Barrier(3, timeout=60)

    def decoded(i):
        if threading.current_thread() is not threading.main_thread() and len(threads) < 3:
            threads.add(threading.get_ident())
            together.wait()  # three decode at once, or this breaks
        return PIXELS[i]

    assert seen(0, 4, pixels=LazyPixels(decoded, len(PIXELS))) == seen(0, 4)
    assert len(threads) == 3


def test_a_picture_that_cannot_be_decoded_ends_the_batches_with_its_name():
    def decoded(i):
        if i == 5:
            raise ValueError("faces.rec: the image of record 5 is not an image")
        return PIXELS[i]

    with pytest.raises(ValueError, match="record 5"):
        seen(0, 4, pixels=LazyPixels(decoded, len(PIXELS)))


def test_an_unknown_level_and_a_batch_that_ranks_cannot_share_are_refused():
    with pytest.raises(ValueError, match=r"augmentation 'wild' is not one of none, flip, mild"):
        seen(0, 1, level="wild")
    with pytest.raises(ValueError, match="batch of 4 cannot be shared out among 3 ranks"):
        seen(0, 1, part=(0, 3))


@pytest.mark.parametrize("level", LEVELS)
def test_augmentation_keeps_shape_and_type_and_leaves_the_crop_alone(level):
    crop = PIXELS[0]
    before = crop.copy()
    for seed in range(200):
        changed = LEVELS[level](crop, np.random.default_rng(seed))
        assert (changed.shape, changed.dtype) == (crop.shape, np.uint8)
    np.testing.assert_array_equal(crop, before)


def test_each_level_changes_more_than_the_one_before():
    def change(level):
        drawn = [LEVELS[level](PIXELS[0], np.random.default_rng(i)) for i in range(100)]
        return np.abs(np.stack(drawn).astype(int) - PIXELS[0]).mean()

    changes = [change(level) for level in ("none", "flip", "mild", "strong")]
    assert changes == sorted(changes)
    assert len(set(changes)) == 4
