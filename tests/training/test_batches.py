"""Batches follow from seed, step and place alone."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from tests.training.crops import drawn_crops
from training.data.augment import LEVELS, _cut
from training.data.batches import Share, batches, coming
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


def test_each_share_has_its_places_in_every_batch_and_goes_round_its_own_crops():
    shares = (Share(np.arange(6), 3), Share(np.arange(6, 9), 1))
    drawn = np.array([indices for _, _, indices in seen(0, 6, shares=shares)])
    assert (drawn[:, :3] < 6).all()
    assert (drawn[:, 3] >= 6).all()
    for epoch in (drawn[:2, :3], drawn[2:4, :3], drawn[4:, :3]):
        assert sorted(epoch.ravel()) == list(range(6))
    assert sorted(drawn[:3, 3]) == sorted(drawn[3:, 3]) == [6, 7, 8]


def test_the_teacher_is_asked_about_the_very_crops_that_the_student_sees():
    def answer(pixels_NHWC):
        return pixels_NHWC.mean((1, 2), dtype=np.float32)

    made = batches(
        PIXELS, size=4, start=0, stop=3, seed=1, level="served", mixtures=0.5, answer=answer
    )
    for _, batch in made:
        np.testing.assert_array_equal(batch.answers_ND, answer(batch.pixels_NHWC))


def test_mixtures_blend_two_crops_as_often_as_asked_and_are_marked():
    made = list(batches(PIXELS, size=32, start=0, stop=20, seed=1, level="none", mixtures=0.25))
    mixed = np.concatenate([batch.mixed_N for _, batch in made])
    assert 0.18 < mixed.mean() < 0.32  # 640 draws: four standard deviations to either side
    for _, batch in made:
        same = [
            np.array_equal(crop, PIXELS[i])
            for crop, i in zip(batch.pixels_NHWC, batch.indices_N, strict=True)
        ]
        assert all(same[k] for k in np.flatnonzero(~batch.mixed_N))
    assert not any(
        batch.mixed_N.any() for _, batch in batches(PIXELS, size=4, start=0, stop=3, seed=1)
    )


def test_mixtures_are_the_same_in_a_run_that_starts_later():
    assert seen(0, 4, mixtures=0.5)[2:] == seen(2, 4, mixtures=0.5)


def test_shares_and_mixtures_that_cannot_be_are_refused_before_a_batch_is_made():
    recipe = SimpleNamespace(augmentation="none", batch=4, seed=1)
    with pytest.raises(ValueError, match="the sets' shares add up to 3 crops; a batch has 4"):
        coming(PIXELS, recipe, shares=[Share(np.arange(9), 3)])
    with pytest.raises(ValueError, match=r"mixtures is 1.5; it must be in \[0, 1\]"):
        coming(PIXELS, recipe, mixtures=1.5)


def test_a_crop_cut_by_an_edge_keeps_what_is_before_it():
    white = np.full((112, 112, 3), 255, np.uint8)
    cut = [_cut(white, np.random.default_rng(seed)) for seed in range(60)]
    lost = np.array([(crop == 0).mean() for crop in cut])
    assert 0.4 < (lost > 0).mean() < 0.9  # black two thirds of the time, else the face itself
    assert lost.max() < 0.6
    assert all(crop[56, 56].tolist() == [255, 255, 255] for crop in cut)
