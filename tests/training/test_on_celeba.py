"""Figures of attribute graphs on CelebA: what is reliable comes from the validation partition."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.training.faces import drawn_attributes, write_celeba
from tests.training.peers import bars, fields
from training.data.attributes import NAMES
from training.evaluate.on_celeba import evaluate, reliable
from training.evaluate.table import classifier_table

SILENT = {"say": lambda _: None}
BALD, MALE, YOUNG, HAT = (NAMES.index(n) for n in ("Bald", "Male", "Young", "Wearing_Hat"))


def told_otherwise(faces, *columns):
    """The faces, with labels of these attributes that have nothing to do with the pixels."""
    labels = faces.labels_NA.copy()
    labels[:, columns] = np.random.default_rng(5).random((len(faces), len(columns))) < 0.5
    return replace(faces, labels_NA=labels)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Bald cannot be told on validation, Wearing_Hat on the test; nobody of validation is young."""
    folder = tmp_path_factory.mktemp("data")
    train, validation, test = (
        drawn_attributes(count, part, seed)
        for seed, (part, count) in enumerate({"train": 20, "validation": 60, "test": 120}.items())
    )
    validation = told_otherwise(validation, BALD)
    validation.labels_NA[:, YOUNG] = False
    write_celeba(folder / "celeba", train, validation, told_otherwise(test, HAT))
    return folder


@pytest.fixture(scope="module")
def figures(data, tmp_path_factory):
    return evaluate([fields(tmp_path_factory.mktemp("g") / "fields.onnx")], data, **SILENT)[0]


def test_reliable_is_chosen_on_validation_and_the_test_is_shown_beside_it(figures):
    assert [name for name, tells in figures["reliable"].items() if not tells] == ["Bald", "Young"]
    rows = figures["attributes"]
    assert list(rows) == list(NAMES)
    assert rows["Bald"]["balanced_accuracy_validation"] < 0.6
    assert rows["Bald"]["balanced_accuracy"] == 1
    assert rows["Wearing_Hat"]["balanced_accuracy_validation"] == 1
    assert rows["Wearing_Hat"]["balanced_accuracy"] < 0.65
    assert rows["Young"]["balanced_accuracy_validation"] is None
    assert all(rows[name]["reliable"] == tells for name, tells in figures["reliable"].items())


def test_the_means_stand_beside_the_majoritys(figures):
    every, of_reliable = figures["metrics"].values()
    assert (every["faces"], every["attributes"], of_reliable["attributes"]) == (120, 40, 38)
    rows = figures["attributes"].values()
    means = {
        name: np.mean([row[name] for row in rows]) for name in ("accuracy", "balanced_accuracy")
    }
    assert every["mean_accuracy"] == pytest.approx(means["accuracy"], abs=1e-3)
    assert every["mean_balanced_accuracy"] == pytest.approx(means["balanced_accuracy"], abs=1e-3)
    assert every["mean_accuracy_low"] <= every["mean_accuracy"] <= every["mean_accuracy_high"]
    assert 0.3 < every["majority_mean_accuracy"] < 0.7


def test_groups_are_compared_over_attributes_that_both_have(figures):
    groups = figures["groups"]
    assert list(groups) == ["Male", "not Male", "Young", "not Young"]
    for group in ("Male", "Young"):
        one, other = groups[group], groups[f"not {group}"]
        assert one["faces"] + other["faces"] == 120
        assert one["attributes"] == other["attributes"] > 0


def test_the_smallest_face_comes_from_validation(figures):
    curves = figures["face_size"]["curves"]
    assert list(curves) == ["CelebA validation", "CelebA test"]
    rows = curves["CelebA validation"]
    assert [row["inter_eye_px"] for row in rows] == [6, 8, 10, 12, 14, 16, 20, 24]
    assert figures["min_inter_eye_px"] in [row["inter_eye_px"] for row in rows[:-1]]


def test_a_table_has_a_line_a_figure(data, figures):
    page = classifier_table([figures, {**figures, "name": "other", "min_inter_eye_px": 9}])
    lines = page.splitlines()
    assert lines[0] == "|  | fields | other |"
    assert sum(line.startswith("| CelebA test, mean accuracy |") for line in lines) == 1
    assert f"| {figures['min_inter_eye_px']:g} | 9 |" in page


@pytest.mark.parametrize(("balanced", "tells"), [(0.6, True), (0.599, False), (np.nan, False)])
def test_from_sixty_per_cent_an_attribute_is_reliable(balanced, tells):
    assert reliable(balanced) is tells


def test_a_graph_of_another_number_of_scores_is_refused_before_anything_is_measured(tmp_path):
    with pytest.raises(ValueError, match=r"bars\.onnx gives 8 scores, not 40"):
        evaluate([bars(tmp_path / "bars.onnx")], tmp_path)
