"""Rates over epochs: lengths from epochs, rise and fall, plateaus as Keras counts them."""

from dataclasses import replace

import pytest

from training.recipes.attributes import mzts_celeba
from training.recipes.expression import patt_lite
from training.schedules import is_over, plateaus, rate, sized

RECIPE = replace(patt_lite(), batch=10, epochs=5, warmup_epochs=2, decay=0.4, learning_rate=1.0)


def test_lengths_come_from_epochs_of_whole_batches_unless_they_are_set():
    found = sized(RECIPE, 109)
    assert (found.steps, found.decay_steps, found.validate_every) == (50, 20, 10)
    given = sized(replace(RECIPE, steps=7, decay_steps=3, validate_every=2), 109)
    assert (given.steps, given.decay_steps, given.validate_every) == (7, 3, 2)
    with pytest.raises(ValueError, match="patt-lite: 9 images do not fill a batch of 10"):
        sized(RECIPE, 9)


def test_the_rate_rises_over_its_epochs_stays_and_falls_along_a_cosine():
    rates = [rate(sized(RECIPE, 100), step, 100) for step in range(50)]
    assert rates[:20] == pytest.approx([(step + 1) / 20 for step in range(20)])
    assert rates[20:31] == pytest.approx([1.0] * 11)
    assert rates[40] == pytest.approx(0.5)
    assert rates[30:] == sorted(rates[30:], reverse=True)
    assert 0 < rates[49] < 0.01


def test_seeds_rate_of_mzts_is_5e_4_times_batch_over_512():
    assert mzts_celeba().learning_rate == 5e-4 * mzts_celeba().batch / 512


@pytest.mark.parametrize(
    ("figures", "times"),
    [
        ([], 0),
        ([0.5, 0.4, 0.4], 0),
        ([0.5, 0.4, 0.4, 0.4], 1),
        ([0.5, 0.502, 0.502, 0.502], 1),  # less than 0.003 is no gain
        ([0.5, 0.4, 0.4, 0.6, 0.5, 0.5], 0),
        ([0.5] * 7, 2),  # after a lowering it is waited anew
        ([0.5] * 4 + [0.6] * 4, 2),
        ([0.1, 0.2, 0.3, 0.4], 0),
    ],
)
def test_plateaus_are_counted_as_keras_counts_them(figures, times):
    assert plateaus(figures, patience=3, least_gain=0.003) == times
    assert is_over(figures, patience=3, least_gain=0.003) == (times > 0)
    assert plateaus(figures, patience=0, least_gain=0.003) == 0
