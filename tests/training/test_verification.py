"""FNMR at FMR and the curves behind DET plots, against loops over pairs."""

from itertools import combinations

import numpy as np
import pytest

from tests.training.people import people
from training.evaluate.bootstrap import draws, interval, measured, widened
from training.evaluate.verification import (
    error_curve,
    fnmr_at_fmr,
    non_mated_pairs,
    pair_scores,
    threshold_at,
    verification,
)


def counted(embeddings: np.ndarray, labels: np.ndarray, weights: np.ndarray, fmr: float) -> tuple:
    """(threshold, FNMR) by counting every pair at every threshold, the highest first."""
    scores = embeddings @ embeddings.T
    mated, other = [], []
    for i, j in combinations(range(len(labels)), 2):
        if labels[i] == labels[j]:
            mated.append((scores[i, j], weights[labels[i]]))
        else:
            other.append((scores[i, j], weights[labels[i]] * weights[labels[j]]))
    total, best = sum(w for _, w in other), None
    for threshold, _ in sorted(other, reverse=True):
        if sum(w for s, w in other if s > threshold) > fmr * total:
            break
        best = threshold
    missed = sum(w for s, w in mated if s <= best) / sum(w for _, w in mated)
    return best, missed


def test_fnmr_at_fmr_is_that_of_counting_every_pair_in_every_round():
    embeddings, labels = people(8, 3, 1.2)
    points = fnmr_at_fmr(embeddings, labels, (0.1, 0.02), rounds=6)
    weights = draws(8, rounds=6)
    for point in points:
        rounds = [counted(embeddings, labels, row, point.fmr) for row in weights]
        assert point.similarity == pytest.approx(rounds[0][0])
        assert point.fnmr == pytest.approx(rounds[0][1])
        expected = interval(np.array([missed for _, missed in rounds]))
        assert (point.fnmr_low, point.fnmr_high) == pytest.approx(expected)


def test_pairs_of_people_behind_a_rate_are_counted_once_each():
    embeddings, labels = people(8, 3, 1.2)
    [point] = fnmr_at_fmr(embeddings, labels, (0.1,), rounds=2)
    above = (embeddings @ embeddings.T > point.similarity) & (labels[:, None] < labels[None])
    assert point.pairs_of_people == len({(labels[i], labels[j]) for i, j in np.argwhere(above)})


def test_people_who_cannot_be_confused_are_never_missed():
    [point] = fnmr_at_fmr(*people(20, 4, 0.01), (1e-3,), rounds=20)
    assert (point.fnmr, point.fnmr_low, point.pairs_of_people) == (0, 0, 1)
    # Twenty people without a miss leave room for a rate of some 3 / 20: no interval of width zero.
    assert point.fnmr_high == pytest.approx(1.96**2 / (20 + 1.96**2), abs=1e-3)


def test_a_rate_below_one_pair_is_no_figure():
    embeddings, labels = people(8, 3, 1.2)
    strangers = 8 * 7 // 2 * 9
    some, none = fnmr_at_fmr(embeddings, labels, (1 / strangers, 0.5 / strangers), rounds=5)
    assert not np.isnan([some.fnmr, some.fnmr_low, some.fnmr_high]).any()
    assert np.isnan([none.fnmr, none.fnmr_low, none.fnmr_high]).all()
    found = verification(embeddings, labels)
    assert found.tar_at_far_1e2 is not None
    assert found.tar_at_far_1e3 is None
    mated, other = pair_scores(embeddings, labels)
    assert found.tar_without_false_match == pytest.approx((mated > other.max()).mean())
    assert non_mated_pairs(labels) == strangers


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_wilsons_interval_holds_the_rate_and_has_a_width(rate):
    low, high = widened(rate, 12)
    assert 0 <= low <= rate <= high <= 1
    assert high - low > 0.1
    assert widened(rate, 1200)[1] - widened(rate, 1200)[0] < (high - low) / 5


def test_of_embeddings_by_chance_as_many_are_missed_as_are_not_falsely_matched():
    rows = np.random.default_rng(1).normal(size=(400, 64))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    points = fnmr_at_fmr(rows, np.repeat(np.arange(40), 10), (0.5, 0.1), rounds=20)
    assert [point.fnmr for point in points] == pytest.approx([0.5, 0.9], abs=0.04)


def test_a_set_without_two_crops_of_anyone_is_refused():
    embeddings, _ = people(5, 1, 1.0)
    with pytest.raises(ValueError, match="pairs of one person"):
        fnmr_at_fmr(embeddings, np.arange(5))


def test_the_curve_holds_the_rates_of_counting_above_each_threshold():
    mated, other = pair_scores(*people(12, 4, 1.5))
    fmr, fnmr = error_curve(mated, other, points=50)
    falling = sorted(other, reverse=True)
    assert (np.diff(fmr) > 0).all()
    for rate, missed in zip(fmr, fnmr, strict=True):
        threshold = falling[round(rate * len(other))]
        assert (other > threshold).mean() == pytest.approx(rate)
        assert (mated <= threshold).mean() == pytest.approx(missed)
    assert fmr[0] == 0
    assert fnmr[-1] <= fnmr[0]


def test_at_most_the_rate_of_the_weight_lies_above_a_threshold():
    rng = np.random.default_rng(0)
    scores, weights = rng.normal(size=200), rng.integers(0, 4, 200).astype(float)
    for rate in (0.0, 0.01, 0.1, 0.5):
        threshold = threshold_at(scores, weights, rate)
        assert weights[scores > threshold].sum() <= rate * weights.sum()
        # The next lower score would let too many through.
        lower = scores[scores < threshold].max()
        assert weights[scores > lower].sum() > rate * weights.sum() or weights[
            scores == threshold
        ] == [0]


def test_a_share_that_is_met_exactly_is_allowed():
    assert threshold_at(np.arange(10.0), np.ones(10), 0.3) == 6


def test_a_mated_pair_at_the_threshold_is_missed():
    crops = np.array([[1, 0], [0, 1], [1, 0], [0, 1]], np.float32)
    [point] = fnmr_at_fmr(crops, np.array([0, 0, 1, 1]), (0.5,), rounds=3)
    assert (point.similarity, point.fnmr) == (0, 1)


def test_the_bootstraps_first_row_is_everyone_once():
    weights = draws(7, rounds=3)
    assert weights[0].tolist() == [1] * 7
    assert weights.sum(1).tolist() == [7] * 4


def test_a_round_that_could_not_be_measured_is_left_out_of_the_interval():
    values = np.array([0.5, 0.4, np.nan, 0.6])
    assert measured("rate", values) == pytest.approx(
        {"rate": 0.5, "rate_low": 0.405, "rate_high": 0.595}
    )
    assert np.isnan(interval(np.array([0.5, np.nan]))).all()
