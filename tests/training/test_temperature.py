"""A temperature is the one that scores were made with, and changes no answer."""

import numpy as np
import pytest

from training.evaluate.reliability import calibration_error
from training.evaluate.temperature import (
    LEAST,
    MOST,
    adjusted,
    cross_entropy,
    sigmoid_temperature,
    sigmoid_temperatures,
    softmax_temperature,
)

RNG = np.random.default_rng(0)


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def drawn_labels(logits, seed=1):
    """Labels that are true with the probability that the logits tell."""
    chances = np.random.default_rng(seed).random((len(logits), 1))
    return (softmax(logits).cumsum(1) < chances).sum(1)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_a_softmaxs_known_temperature_is_found(temperature):
    meant = RNG.normal(0, 2, (20_000, 8))
    labels, given = drawn_labels(meant), meant * temperature
    found = softmax_temperature(given, labels)
    assert found == pytest.approx(temperature, rel=0.03)
    scores = softmax(given / found)
    assert (scores.argmax(1) == given.argmax(1)).all()
    assert calibration_error(scores.max(1), scores.argmax(1) == labels) < 0.015


def test_no_other_temperature_has_less_cross_entropy():
    logits = RNG.normal(0, 3, (300, 8))
    labels = np.where(RNG.random(300) < 0.7, logits.argmax(1), RNG.integers(0, 8, 300))

    def entropy(temperature):
        return -np.log(softmax(logits / temperature)[np.arange(300), labels]).mean()

    found = softmax_temperature(logits, labels)
    assert 2 * LEAST < found < MOST / 2
    assert all(entropy(found) <= entropy(found * other) for other in (0.9, 0.99, 1.01, 1.1))


def test_what_is_always_right_or_always_wrong_ends_at_the_limits():
    logits = np.eye(4)
    assert softmax_temperature(logits, np.arange(4)) == pytest.approx(LEAST)
    assert softmax_temperature(logits, (np.arange(4) + 1) % 4) == pytest.approx(MOST)


def drawn_presence(faces, *temperatures):
    """Logits and labels of an attribute for each temperature that the logits are wrong by."""
    meant = np.random.default_rng(2).normal(0, 2, (faces, len(temperatures)))
    present = np.random.default_rng(3).random(meant.shape) < 1 / (1 + np.exp(-meant))
    return meant * temperatures, present


def test_attributes_get_a_temperature_each_where_theirs_differ():
    wrong_by = (0.3, 1.0, 3.0)
    logits, present = drawn_presence(8_000, *wrong_by)
    fit = sigmoid_temperatures(logits, present)
    np.testing.assert_allclose(fit.temperature, wrong_by, rtol=0.08)
    assert fit.cross_entropy["one_each"] < fit.cross_entropy["one_for_all"]
    assert ((logits / fit.temperature >= 0) == (logits >= 0)).all()


def test_attributes_share_one_temperature_where_faces_are_too_few_to_tell_theirs_apart():
    logits, present = drawn_presence(120, *[1.5] * 40)
    fit = sigmoid_temperatures(logits, present)
    assert isinstance(fit.temperature, float)
    assert fit.temperature == pytest.approx(1.5, rel=0.1)
    assert fit.cross_entropy["one_for_all"] < fit.cross_entropy["one_each"]


def test_the_cross_entropy_is_that_of_what_is_so():
    logits, present = np.array([[0.0, 2.0]]), np.array([[True, False]])
    wanted = -(np.log(0.5) + np.log(1 - 1 / (1 + np.exp(-2.0)))) / 2
    assert cross_entropy(logits, present) == pytest.approx(wanted)


def rare_and_common(faces=20_000):
    """Calibrated logits of an attribute that one face in ten has, and of one that nine have."""
    rng = np.random.default_rng(4)
    present = rng.random((faces, 2)) < (0.1, 0.9)
    odds = np.log(1 / 9)
    return np.where(present, 1, -1) + rng.normal(0, 2**0.5, (faces, 2)) + (odds, -odds), present


def balanced(found, present):
    return np.mean([found[present].mean(), (~found[~present]).mean()])


def test_rare_attributes_are_found_for_the_accuracy_that_may_be_spent():
    logits, present = rare_and_common()
    adjustment = adjusted(logits, present, spent=0.005)
    before, after = logits >= 0, logits >= adjustment.shift_A
    lost = (before == present).mean() - (after == present).mean()
    assert 0.002 < lost <= 0.005
    for column in (0, 1):
        columns = (found[:, column] for found in (before, after))
        gained = [balanced(found, present[:, column]) for found in columns]
        assert gained[1] > gained[0] + 0.03
    np.testing.assert_allclose(adjustment.shift_A, adjustment.share * np.log([1 / 9, 9]), rtol=0.1)


def test_a_network_that_knows_nothing_is_not_moved_away_from_what_is_usual():
    present = np.random.default_rng(6).random((5_000, 2)) < (0.1, 0.9)
    logits = np.tile(np.log([1 / 9, 9]), (5_000, 1))
    adjustment = adjusted(logits, present)
    assert adjustment.share < 0.3
    scores = 1 / (1 + np.exp(-np.abs(logits - adjustment.shift_A)))
    right = (logits >= adjustment.shift_A) == present
    assert calibration_error(scores.ravel(), right.ravel()) <= 0.03


def test_where_nothing_may_be_spent_nothing_that_costs_is_shifted():
    logits, present = rare_and_common()
    assert adjusted(logits, present, spent=0).share <= 0.1


@pytest.mark.parametrize(
    ("fit", "logits", "labels", "words"),
    [
        (softmax_temperature, np.zeros((0, 8)), np.zeros(0, int), r"logits are \(0, 8\)"),
        (softmax_temperature, np.zeros((2, 8)), np.zeros(3, int), r"labels \(3,\)"),
        (softmax_temperature, np.zeros((2, 8)), np.array([0, 8]), r"outside \[0, 8\)"),
        (softmax_temperature, np.full((1, 8), np.inf), np.zeros(1, int), "not a finite"),
        (sigmoid_temperature, np.zeros((2, 3)), np.ones((2, 4), bool), r"labels \(2, 4\)"),
    ],
)
def test_logits_and_labels_that_do_not_fit_are_refused(fit, logits, labels, words):
    with pytest.raises(ValueError, match=words):
        fit(logits, labels)
