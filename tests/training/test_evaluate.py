"""Figures of verification: against counting by hand, and against the check that shares no code."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.shared import SHARED, needs_shared
from tests.standin import recognition_graph
from tests.training.people import people
from training.evaluate import lfw
from training.evaluate.figures import evaluate
from training.evaluate.pairs import pair_figures, read_pairs, ten_fold
from training.evaluate.verification import verification


def test_people_who_cannot_be_confused_have_no_errors():
    embeddings, labels = people(20, 4, 0.01)
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
    pairs, wanted = read_pairs(folder / "pairs.txt"), check.read_pairs(folder / "pairs.txt")
    ours = [
        (fold, pairs.names[a], pairs.names[b], same)
        for fold, a, b, same in zip(pairs.fold_P, pairs.a_P, pairs.b_P, pairs.same_P, strict=True)
    ]
    assert ours == wanted
    names = pairs.names[::500]
    difference = lfw.read_crops(folder, names).astype(int) - check.crops(folder, names)
    assert np.abs(difference).max() <= 1
    similarity = np.random.default_rng(0).normal(pairs.same_P * 0.3, 0.15)
    by_fold = [ten_fold(similarity, pairs)[pairs.fold_P == f].mean() for f in range(10)]
    np.testing.assert_allclose(by_fold, check.ten_fold(similarity, pairs.same_P, pairs.fold_P))
    mated, non_mated = similarity[pairs.same_P], similarity[~pairs.same_P]
    figures = pair_figures(similarity, pairs)
    for name, far in (("1e1", 1e-1), ("1e2", 1e-2), ("1e3", 1e-3)):
        tar, _ = check.tar_at_far(mated, non_mated, far)
        assert figures[f"tar_at_far_{name}"] == tar
        assert figures[f"tar_at_far_{name}_low"] <= tar <= figures[f"tar_at_far_{name}_high"]
    # Of 3,000 non-mated pairs 1e-4 is less than one: the check gives the TAR at FAR 0 for it.
    assert check.tar_at_far(mated, non_mated, 1e-4) == check.tar_at_far(mated, non_mated, 0)
    assert np.isnan(figures["tar_at_far_1e4"])


@needs_shared("data/lfw", "checks/accuracy.py")
@pytest.mark.slow
def test_a_graphs_figures_on_lfw_are_those_of_the_independent_check(tmp_path):
    graph, told = tmp_path / "graph.onnx", tmp_path / "told.json"
    graph.write_bytes(recognition_graph())
    check = [SHARED / "checks" / "accuracy.py", graph, "--json", told]
    subprocess.run([sys.executable, *check], check=True, capture_output=True)
    wanted = json.loads(told.read_text())
    [measured] = evaluate([graph], tmp_path_with_lfw(tmp_path), tmp_path / "cache")
    found = measured.figures["verification"]["LFW"]
    names = {"tar@far=0.01": "tar_at_far_1e2", "tar@far=0.001": "tar_at_far_1e3"}
    for name in ("accuracy", "standard_error", "equal_error_rate"):
        assert found[name] == pytest.approx(wanted[name], abs=1e-3)
    for theirs, ours in names.items():
        assert found[ours] == pytest.approx(wanted[theirs]["tar"], abs=2e-3)


def tmp_path_with_lfw(folder: Path) -> Path:
    """A folder of data with LFW alone."""
    (folder / "data").mkdir()
    (folder / "data" / "lfw").symlink_to(SHARED / "data" / "lfw")
    return folder / "data"


def test_a_pairs_file_of_another_form_is_refused_by_its_line(tmp_path):
    (tmp_path / "pairs.txt").write_text("10\t300\nAda 1 2\nAda 1\n")
    with pytest.raises(ValueError, match="line 3"):
        read_pairs(tmp_path / "pairs.txt")


def test_a_photograph_without_landmarks_is_named(tmp_path):
    heading = ",".join(("path", *lfw.COORDINATES))
    (tmp_path / "landmarks.csv").write_text(f"{heading}\nAda/Ada_0001.jpg{',1' * 10}\n")
    with pytest.raises(ValueError, match=r"landmarks\.csv has no Ada/Ada_0002\.jpg"):
        lfw.read_crops(tmp_path, ["Ada/Ada_0001.jpg", "Ada/Ada_0002.jpg"])
