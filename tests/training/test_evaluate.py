"""Figures of verification: against counting by hand, and against the check that shares no code."""

import importlib.util

import numpy as np
import pytest

from tests.shared import SHARED, needs_shared
from training.evaluate import lfw
from training.evaluate.verification import verification


def people(count: int, each: int, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit embeddings around a direction a person."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(count), each)
    rows = rng.normal(size=(count, 32))[labels] + spread * rng.normal(size=(count * each, 32))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32), labels


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
