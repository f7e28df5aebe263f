"""Figures of verification: against counting by hand, and against the check that shares no code."""

import importlib.util

import numpy as np
import pytest

from service.calibration.measure import RULE_OF, measure_calibration
from service.decision import Calibration, threshold_for_fmr
from tests.shared import SHARED, needs_shared
from training.evaluate import lfw
from training.evaluate.verification import pair_scores, verification


def people(count: int, each: int, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit embeddings around a direction a person."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(count), each)
    rows = rng.normal(size=(count, 32))[labels] + spread * rng.normal(size=(count * each, 32))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32), labels


def test_the_calibrations_rates_are_those_of_counting_every_pair():
    embeddings, labels = people(40, 5, 1.5)
    block = measure_calibration(embeddings, labels, rounds=50)
    mated, non_mated = pair_scores(embeddings, labels)
    curve = block["curve"]
    for k in range(0, len(curve["similarity"]), 17):
        similarity = curve["similarity"][k]
        assert curve["fmr"][k] == pytest.approx(
            (non_mated >= similarity).mean(), rel=2e-3, abs=1e-5
        )
        assert curve["fnmr"][k] == pytest.approx((mated < similarity).mean(), rel=2e-3, abs=2e-3)
        assert curve["fmr_low"][k] <= curve["fmr"][k] <= curve["fmr_high"][k] + 1e-9
    assert (block["mated_pairs"], block["non_mated_pairs"]) == (len(mated), len(non_mated))


def test_thirty_pairs_of_people_stand_behind_the_smallest_rate():
    embeddings, labels = people(40, 5, 1.5)
    calibration = Calibration.from_manifest(measure_calibration(embeddings, labels, rounds=20))
    similarity = threshold_for_fmr(calibration, 1e-12).similarity
    matched = (embeddings @ embeddings.T >= similarity - 0.005) & (labels[:, None] < labels[None])
    assert len({(labels[i], labels[j]) for i, j in np.argwhere(matched)}) >= RULE_OF


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    """The same people again and again: 95 % intervals should hold most draws' own FMR at one
    cut."""
    embeddings, labels = people(300, 3, 1.5, seed=1)
    whole = measure_calibration(embeddings, labels, rounds=2)["curve"]
    k = int(np.argmin(np.abs(np.array(whole["similarity"]) - 0.3)))
    truth, covered = whole["fmr"][k], 0
    for draw in range(20):
        chosen = np.random.default_rng(draw).choice(300, 60, replace=False)
        rows = np.isin(labels, chosen)
        relabelled = np.searchsorted(np.sort(chosen), labels[rows])
        curve = measure_calibration(embeddings[rows], relabelled, rounds=100, seed=draw)["curve"]
        at = int(np.argmin(np.abs(np.array(curve["similarity"]) - whole["similarity"][k])))
        covered += curve["fmr_low"][at] <= truth <= curve["fmr_high"][at]
    assert covered >= 15


def test_people_who_cannot_be_confused_have_no_errors():
    embeddings, labels = people(10, 4, 0.01)
    figures = verification(embeddings, labels)
    assert (figures.tar_at_far_1e2, figures.tar_at_far_1e3, figures.equal_error_rate) == (1, 1, 0)


def _check():
    spec = importlib.util.spec_from_file_location("accuracy", SHARED / "checks" / "accuracy.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@needs_shared("data/lfw", "checks/accuracy.py")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the check's files
def test_pairs_crops_and_figures_are_those_of_the_independent_check():
    check, folder = _check(), SHARED / "data" / "lfw"
    pairs, wanted = lfw.read_pairs(folder / "pairs.txt"), check.read_pairs(folder / "pairs.txt")
    ours = [
        (fold, pairs.names[a], pairs.names[b], same)
        for fold, a, b, same in zip(pairs.fold_P, pairs.a_P, pairs.b_P, pairs.same_P, strict=True)
    ]
    assert ours == wanted
    names = pairs.names[::500]
    difference = lfw.read_crops(folder, names).astype(int) - check.crops(folder, names)
    assert np.abs(difference).max() <= 1
    similarity = np.random.default_rng(0).normal(pairs.same_P * 0.3, 0.15)
    by_fold = [lfw.ten_fold(similarity, pairs)[pairs.fold_P == f].mean() for f in range(10)]
    np.testing.assert_allclose(by_fold, check.ten_fold(similarity, pairs.same_P, pairs.fold_P))
    mated, non_mated = similarity[pairs.same_P], similarity[~pairs.same_P]
    for far in (1e-2, 1e-3):
        tar, _ = check.tar_at_far(mated, non_mated, far)
        assert lfw.tar_at_far(similarity, pairs.same_P, far) == tar


def test_a_pairs_file_of_another_form_is_refused_by_its_line(tmp_path):
    (tmp_path / "pairs.txt").write_text("10\t300\nAda 1 2\nAda 1\n")
    with pytest.raises(ValueError, match="line 3"):
        lfw.read_pairs(tmp_path / "pairs.txt")
