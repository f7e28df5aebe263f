"""Error versus discard: against counting by hand."""

import numpy as np
import pytest

from training.evaluate.discard import SHARES, Comparisons, curve, discard_rates, gate, ideal


def comparisons(missed, people=4):
    count = len(missed)
    rows = np.arange(count)
    return Comparisons(rows, rows + count, rows % people, np.array(missed))


def test_the_least_worth_go_first_and_the_rest_is_counted():
    worth = np.array([0.5, 0.1, 0.9, 0.3])
    missed = np.array([False, True, False, True])
    rates = discard_rates(worth, missed, np.ones((1, 4)), np.array([0, 0.2, 0.25, 0.5, 0.75]))
    # A share that falls within a comparison takes it away whole, as weights that are drawn do.
    assert rates[0].tolist() == [0.5, 1 / 3, 1 / 3, 0, 0]


def test_weights_count_as_so_many_of_the_same():
    rng = np.random.default_rng(0)
    worth, missed = rng.normal(size=30), rng.random(30) < 0.4
    weights = rng.integers(0, 3, 30)
    many = np.repeat(np.arange(30), weights)
    shares = np.array([0, 0.1, 0.3])
    together = discard_rates(worth, missed, weights[None].astype(float), shares)[0]
    for share, rate in zip(shares, together, strict=True):
        order = many[np.argsort(worth[many], kind="stable")]
        kept = round((1 - share) * len(order))
        values = {worth[i] for i in order[len(order) - kept :]}
        alike = [missed[i] for i in order if worth[i] in values and worth[i] != min(values)]
        low, high = sum(alike), sum(alike) + weights.max()
        assert low / (kept + weights.max()) <= rate <= high / max(1, len(alike))


def test_the_worse_photograph_of_a_pair_decides():
    one = Comparisons(np.array([0, 1]), np.array([2, 2]), np.array([0, 1]), np.zeros(2, bool))
    assert one.worse(np.array([0.9, 0.1, 0.5])).tolist() == [0.5, 0.1]


def test_a_worth_that_knows_the_misses_is_the_ideal_and_one_that_knows_nothing_is_flat():
    rng = np.random.default_rng(0)
    missed = rng.random(4000) < 0.1
    found = comparisons(missed, people=400)
    knows = np.concatenate([np.where(missed, 0.0, 1.0), np.ones(4000)])
    assert np.allclose(curve(knows, found, rounds=20)["fnmr"], ideal(found), atol=2e-3)
    blind = curve(rng.random(8000), found, rounds=50)
    assert np.ptp(blind["fnmr"]) < 0.03
    assert len(blind["fnmr"]) == len(SHARES)
    for row in blind["told"]:
        assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
        assert row["ratio_low"] < 1 < row["ratio_high"]


def test_a_gate_tells_what_it_refuses_and_what_is_left():
    missed = np.array([True, True, False, False, False, False, False, False])
    found = comparisons(missed)
    passed = np.ones(16, bool)
    passed[[0, 10]] = False  # a photograph of the first pair, and one of the third
    told = gate(passed, found, rounds=20)
    assert told["photographs_refused"] == pytest.approx(2 / 16)
    assert told["comparisons_refused"] == pytest.approx(2 / 8)
    assert told["fnmr"] == pytest.approx(1 / 6)
    assert told["ratio"] == pytest.approx((1 / 6) / (2 / 8))


def test_a_gate_that_refuses_nothing_changes_nothing():
    told = gate(np.ones(40, bool), comparisons([True] * 5 + [False] * 15), rounds=20)
    assert (told["comparisons_refused"], told["ratio"]) == (0, 1)
