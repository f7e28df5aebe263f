"""What a calibration is measured to be, against counting by hand and against people left out."""

import json

import numpy as np
import pytest

from service.calibration import measure
from service.calibration.measure import (
    MIN_PEOPLE,
    RULE_OF,
    measure_calibration,
    measure_population,
)
from service.decision import Calibration, rate_at, threshold_for_fmr

STEP = 0.005


def people(count: int, each: int, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit embeddings around a direction a person."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(count), each)
    rows = rng.normal(size=(count, 32))[labels] + spread * rng.normal(size=(count * each, 32))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32), labels


def pairs(embeddings: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each pair of crops once: similarity, whether it is mated, which two people it is of."""
    a, b = np.triu_indices(len(labels), 1)
    who = np.sort(np.stack([labels[a], labels[b]], axis=1), axis=1)
    return (embeddings[a] * embeddings[b]).sum(1), labels[a] == labels[b], who


def test_the_rates_are_those_of_counting_every_pair() -> None:
    embeddings, labels = people(40, 5, 1.5)
    shuffled = np.random.default_rng(1).permutation(len(labels))
    block = measure_calibration(embeddings[shuffled], labels[shuffled], rounds=50)
    similarity, mated, _ = pairs(embeddings, labels)
    curve = block["curve"]
    for k in range(0, len(curve["similarity"]), 7):
        cut = curve["similarity"][k]
        fmr, fnmr = (similarity[~mated] >= cut).mean(), (similarity[mated] < cut).mean()
        assert curve["fmr"][k] == pytest.approx(fmr, rel=2e-3, abs=1e-5)
        assert curve["fnmr"][k] == pytest.approx(fnmr, rel=2e-3, abs=2e-3)
        assert curve["fmr_low"][k] <= curve["fmr"][k] <= curve["fmr_high"][k] + 1e-9
    assert (block["mated_pairs"], block["non_mated_pairs"]) == (mated.sum(), (~mated).sum())


def test_a_case_small_enough_to_count_on_paper() -> None:
    """Ten people on axes of their own, two crops each; those of the last are strangers."""
    embeddings = np.repeat(np.eye(11, dtype=np.float32)[:10], 2, axis=0)
    embeddings[19] = np.eye(11)[10]
    block = measure_calibration(embeddings, np.repeat(np.arange(10), 2), rounds=20)
    at = {round(s, 3): k for k, s in enumerate(block["curve"]["similarity"])}
    curve = block["curve"]
    assert (curve["fmr"][at[0.0]], curve["fmr"][at[0.005]]) == (1, 0)  # strangers: cosine 0
    assert (curve["fnmr"][at[0.0]], curve["fnmr"][at[0.005]]) == (0, 0.1)
    assert (block["people"], block["mated_pairs"], block["non_mated_pairs"]) == (10, 10, 180)
    assert block["smallest_fmr"] == 1


def test_thirty_pairs_of_people_stand_behind_the_smallest_rate() -> None:
    embeddings, labels = people(40, 5, 1.5)
    block = measure_calibration(embeddings, labels, rounds=20)
    similarity, mated, who = pairs(embeddings, labels)

    def confused(cut: float) -> int:
        return len({(a, b) for a, b in who[~mated & (similarity >= cut)].tolist()})

    curve = block["curve"]
    last = max(k for k, fmr in enumerate(curve["fmr"]) if fmr >= block["smallest_fmr"])
    assert confused(curve["similarity"][last]) >= RULE_OF
    assert confused(curve["similarity"][last + 1]) < RULE_OF


def test_a_target_is_flagged_just_where_fewer_than_thirty_pairs_stand_behind_it() -> None:
    block = measure_calibration(*people(40, 5, 1.5), rounds=20)
    rows = block["thresholds"]
    assert [row["target_fmr"] for row in rows] == [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6]
    assert 1e-4 < block["smallest_fmr"] < 1e-2
    for row in rows:
        assert row["extrapolated"] == (row["target_fmr"] < block["smallest_fmr"])
        assert row["fmr"] == pytest.approx(row["target_fmr"], rel=0.01)
        assert row["similarity_low"] <= row["similarity"] <= row["similarity_high"]
    thresholds = [row["similarity"] for row in rows]
    assert thresholds == sorted(thresholds)
    widths = [row["similarity_high"] - row["similarity_low"] for row in rows]
    assert widths[-1] > widths[0]  # less is known of what was not seen


def test_an_extrapolated_threshold_promises_no_less_than_was_asked() -> None:
    """Against ninety times as many strangers as were measured."""
    embeddings, labels = people(300, 3, 1.5, seed=1)
    similarity, mated, _ = pairs(embeddings, labels)
    strangers = np.sort(similarity[~mated])
    under_the_upper_bound = 0
    for draw in range(20):
        chosen = np.sort(np.random.default_rng(draw).choice(300, 30, replace=False))
        rows = np.isin(labels, chosen)
        block = measure_calibration(
            embeddings[rows], np.searchsorted(chosen, labels[rows]), rounds=100, seed=draw
        )
        row = next(row for row in block["thresholds"] if row["target_fmr"] == 1e-4)
        assert row["extrapolated"]
        true = 1 - np.searchsorted(strangers, row["similarity"]) / len(strangers)
        under_the_upper_bound += true <= row["fmr_high"]
    assert under_the_upper_bound >= 18


def test_the_tail_goes_on_where_the_measured_curve_ends() -> None:
    block = json.loads(json.dumps(measure_calibration(*people(40, 5, 1.5), rounds=20)))
    whole = Calibration.from_manifest(block)
    measured = Calibration.from_manifest({k: v for k, v in block.items() if k != "tail"})
    start = block["tail"]["similarity"][0]
    before = whole.similarity_G < start - STEP / 2
    np.testing.assert_allclose(whole.fmr_G[before], measured.fmr_G[before], rtol=1e-12)
    assert rate_at(whole, whole.fmr_G, start - STEP) == pytest.approx(block["smallest_fmr"])
    beyond = np.log(whole.fmr_G[~before])
    np.testing.assert_allclose(np.diff(beyond), np.diff(beyond)[0], rtol=0.02)  # exponential
    assert measured.lowest_fmr == block["smallest_fmr"] > whole.lowest_fmr
    asked = block["smallest_fmr"] / 100
    assert threshold_for_fmr(whole, asked).extrapolated
    assert threshold_for_fmr(whole, asked).target == asked
    assert threshold_for_fmr(measured, asked).target == block["smallest_fmr"]
    assert not threshold_for_fmr(measured, asked).extrapolated


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """The same people again and again: 95 % intervals should hold most draws' own FMR at one
    cut."""
    embeddings, labels = people(300, 3, 1.5, seed=1)
    similarity, mated, _ = pairs(embeddings, labels)
    truth, covered = (similarity[~mated] >= 0.3).mean(), 0
    for draw in range(20):
        chosen = np.sort(np.random.default_rng(draw).choice(300, 60, replace=False))
        rows = np.isin(labels, chosen)
        relabelled = np.searchsorted(chosen, labels[rows])
        curve = measure_calibration(embeddings[rows], relabelled, rounds=100, seed=draw)["curve"]
        at = int(np.argmin(np.abs(np.array(curve["similarity"]) - 0.3)))
        covered += curve["fmr_low"][at] <= truth <= curve["fmr_high"][at]
    assert covered >= 15


def test_no_error_among_a_few_people_leaves_room_for_some_among_many() -> None:
    block = measure_calibration(*people(20, 4, 0.01), rounds=20)
    row = block["thresholds"][1]
    assert (row["fnmr"], row["fnmr_low"], row["fnmr_high"]) == (0, 0, 3 / 20)


def test_a_person_with_one_crop_counts_where_people_are_told_apart() -> None:
    embeddings, labels = people(20, 2, 1.0)
    once = np.concatenate([np.arange(0, 40, 2), np.arange(1, 20, 2)])  # ten have a second crop
    block = measure_calibration(embeddings[once], labels[once], rounds=20)
    assert (block["people"], block["crops"], block["mated_pairs"]) == (20, 30, 10)
    assert block["non_mated_pairs"] == 30 * 29 // 2 - 10


def test_a_round_that_drew_nobody_with_two_crops_is_no_round() -> None:
    counts_RG = np.array([[1.0, 1], [0, 0], [0, 2]])
    assert measure._accepted(counts_RG).tolist() == [[1, 0.5], [1, 1]]


def test_too_few_people_are_refused_with_their_number() -> None:
    embeddings, labels = people(12, 2, 1.0)
    kept = np.concatenate([np.arange(18), [18, 20, 22]])
    assert MIN_PEOPLE == 10
    with pytest.raises(ValueError, match=r"^9 people have two photographs or more; .* needs 10$"):
        measure_calibration(embeddings[kept], labels[kept])
    with pytest.raises(ValueError, match="0 people"):
        measure_calibration(embeddings[:0], labels[:0])


def test_it_says_how_far_it_is() -> None:
    told: list[tuple[int, int]] = []
    measure_calibration(
        *people(12, 2, 1.0), rounds=2, progress=lambda done, of: told.append((done, of))
    )
    assert told == [(n, 12) for n in range(1, 13)]


def test_strangers_with_one_photograph_each_have_the_rates_that_people_with_one_have() -> None:
    """The same photographs counted by the way of people: beside ten people far from everybody."""
    embeddings, _ = people(60, 1, 1.0)
    block = measure_population(embeddings, rounds=30)
    a, b = np.triu_indices(60, 1)
    similarity = (embeddings[a] * embeddings[b]).sum(1)
    curve = block["curve"]
    for k in range(0, len(curve["similarity"]), 7):
        fmr = (similarity >= curve["similarity"][k]).mean()
        assert curve["fmr"][k] == pytest.approx(fmr, rel=2e-3, abs=1e-5)
    assert (block["crops"], block["non_mated_pairs"]) == (60, 60 * 59 // 2)
    weights = np.concatenate([np.ones((1, 60)), np.random.default_rng(3).poisson(1, (20, 60))])
    silent = (lambda done, of: None,)
    _, non_mated, confused = measure._counted(embeddings, np.arange(60), weights, *silent)
    counts = measure._counted_strangers(embeddings, weights, *silent)
    np.testing.assert_allclose(counts, non_mated)
    np.testing.assert_allclose(counts[0, ::-1].cumsum()[::-1], confused)


def test_a_population_is_read_beside_the_people_and_costs_their_fnmr() -> None:
    block = measure_calibration(*people(40, 5, 1.5), rounds=20)
    strangers, _ = people(80, 1, 1.0, seed=2)
    block["populations"] = {"visitors": measure_population(strangers, rounds=20)}
    calibration = Calibration.from_manifest(json.loads(json.dumps(block)))
    visitors = calibration.populations["visitors"]
    assert (visitors.population, visitors.crops) == ("visitors", 80)
    threshold = threshold_for_fmr(visitors, 1e-2)
    fnmr = rate_at(calibration, calibration.fnmr_G, threshold.similarity)
    assert threshold.fnmr == pytest.approx(fnmr, rel=1e-2)


def test_too_few_strangers_are_refused_with_their_number() -> None:
    with pytest.raises(ValueError, match=r"^9 strangers; a population needs 10$"):
        measure_population(people(9, 1, 1.0)[0])
