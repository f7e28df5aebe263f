"""The probe: against classes that a line divides, and against chance."""

import numpy as np
import pytest

from training.evaluate.probe import (
    cross_validate,
    fit_probe,
    least_sure,
    probabilities,
    whitened,
)


def clouds(each: int, apart: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three clouds of points in 12 dimensions, their centres so far apart."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), each)
    points = rng.normal(size=(3 * each, 12)) + apart * np.eye(12)[labels]
    order = rng.permutation(3 * each)
    return points[order].astype(np.float32), labels[order]


def test_classes_that_a_line_divides_are_told_apart_also_in_rows_never_seen() -> None:
    (known, labels), (asked, wanted) = clouds(200, 8), clouds(100, 8, seed=1)
    rows, others = whitened(known, asked)
    found = probabilities(fit_probe(rows, labels, 3), others)
    assert (found.argmax(1) == wanted).mean() > 0.99
    np.testing.assert_allclose(found.sum(1), 1)


def test_cross_validation_tells_the_accuracy_on_rows_never_seen_and_chance_where_nothing_is() -> (
    None
):
    (known, labels), (asked, wanted) = clouds(300, 2), clouds(3000, 2, seed=1)
    rows, others = whitened(known, asked)
    tried = (cross_validate(rows, labels, 3).argmax(1) == labels).mean()
    in_truth = (probabilities(fit_probe(rows, labels, 3), others).argmax(1) == wanted).mean()
    assert tried == pytest.approx(in_truth, abs=0.05)
    mixed = np.random.default_rng(2).permutation(labels)
    assert (cross_validate(rows, mixed, 3).argmax(1) == mixed).mean() < 0.45


def test_the_weights_are_those_of_the_penalised_likelihoods_maximum() -> None:
    """Where its gradient is zero, whatever the way there."""
    known, labels = clouds(100, 1)
    rows, _ = whitened(known, known)
    weights = fit_probe(rows, labels, 3)
    ones = np.c_[rows, np.ones(len(rows))]
    gradient = ones.T @ (probabilities(weights, rows) - np.eye(3)[labels]) / len(rows)
    gradient[:-1] += 0.01 * weights[:-1]
    assert abs(gradient).max() < 1e-3


def test_whitened_rows_have_about_unit_variance_in_each_direction() -> None:
    known, _ = clouds(2000, 0)
    rows, _ = whitened(known * np.arange(1, 13, dtype=np.float32), known)
    assert rows[:, -1].std() == pytest.approx(1, abs=0.05)
    assert abs(np.corrcoef(rows.T) - np.eye(12)).max() < 0.01


def test_the_least_sure_row_is_the_last_from_which_on_enough_are_right() -> None:
    probability = np.array([0.9, 0.6, 0.8, 0.7, 0.5])
    right = np.array([True, True, True, False, False])
    assert least_sure(probability, right, 0.75) == (0.6, 0.75)
    assert least_sure(probability, right, 0.9) == (0.8, 1.0)
    assert least_sure(probability, ~right, 0.9) is None
    assert least_sure(probability[:0], right[:0], 0.9) is None
