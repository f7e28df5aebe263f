"""Tables of expressions and attributes, against loops over faces."""

import numpy as np
import pytest

from tests.training.peers import classifier
from training.evaluate.attributes import attribute_figures, attribute_scores
from training.evaluate.expression import expression_figures, expression_scores
from training.evaluate.reliability import calibration_error, reliability
from training.graphs import open_classifier

CLASSES = ("neutral", "happiness", "fear", "disgust")


def drawn_answers(faces: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Scores that lean towards the label; nobody shows disgust."""
    rng = np.random.default_rng(0)
    labels = rng.choice(4, faces, p=[0.6, 0.3, 0.1, 0])
    scores = rng.dirichlet(np.ones(4), faces) + 0.4 * np.eye(4)[labels]
    return scores / scores.sum(1, keepdims=True), labels


def test_the_table_is_that_of_counting_faces():
    scores, labels = drawn_answers()
    found = expression_figures(scores, labels, CLASSES, rounds=50)
    answers = [int(np.argmax(row)) for row in scores]
    f1 = []
    for k, name in enumerate(CLASSES):
        there = sum(label == k for label in labels)
        given = sum(answer == k for answer in answers)
        right = sum(a == b == k for a, b in zip(answers, labels, strict=True))
        row = found["classes"][name]
        assert found["confusion"][k][k] == right
        assert row["faces"] == there
        assert row["precision"] == pytest.approx(right / given)
        if there:
            assert row["recall"] == pytest.approx(right / there)
            f1.append(2 * right / (there + given))
    assert np.isnan(found["classes"]["disgust"]["recall"])
    assert found["macro_f1"] == pytest.approx(np.mean(f1))
    assert found["accuracy"] == np.mean([a == b for a, b in zip(answers, labels, strict=True)])
    assert found["accuracy_low"] < found["accuracy"] < found["accuracy_high"]
    assert found["macro_f1_low"] < found["macro_f1"] < found["macro_f1_high"]
    assert found["majority_accuracy"] == (labels == 0).mean()
    assert np.sum(found["confusion"]) == 200


def test_perfect_answers_have_no_errors_and_the_same_answer_to_all_has_the_majoritys():
    labels = np.array([0, 0, 0, 1, 2])
    perfect = expression_figures(np.eye(3)[labels], labels, CLASSES[:3], rounds=5)
    assert (perfect["accuracy"], perfect["macro_f1"], perfect["accuracy_low"]) == (1, 1, 1)
    assert perfect["expected_calibration_error"] == 0
    same = expression_figures(np.tile([0.8, 0.1, 0.1], (5, 1)), labels, CLASSES[:3], rounds=5)
    assert same["accuracy"] == same["majority_accuracy"] == 0.6
    assert same["macro_f1"] == pytest.approx((2 * 3 / (3 + 5)) / 3)
    assert same["expected_calibration_error"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("scores", "labels", "words"),
    [
        (np.ones((2, 3)), np.array([0, 1]), r"\(2, 3\), not \(2 faces, 4 classes\)"),
        (np.ones((2, 4)), np.array([0, 4]), r"label 4 is outside \[0, 4\)"),
        (np.ones((2, 4)), np.array([-1, 0]), r"label -1"),
        (np.full((2, 4), np.nan), np.array([0, 1]), "not a finite number"),
        (np.ones((0, 4)), np.empty(0, int), "empty"),
    ],
)
def test_scores_and_labels_of_another_form_are_refused(scores, labels, words):
    with pytest.raises(ValueError, match=words):
        expression_figures(scores, labels, CLASSES)


def test_the_calibration_error_is_the_mean_gap_of_the_bins():
    rng = np.random.default_rng(1)
    confidence = rng.uniform(size=500)
    right = rng.uniform(size=500) < confidence**2
    gap, filled = 0.0, 0
    for k in range(15):
        inside = [i for i, c in enumerate(confidence) if k / 15 < c <= (k + 1) / 15]
        if inside:
            filled += 1
            gap += abs(sum(right[inside]) - sum(confidence[inside])) / 500
    assert calibration_error(confidence, right) == pytest.approx(gap)
    points = reliability(confidence, right)
    assert (len(points), sum(point["count"] for point in points)) == (filled, 500)


def test_certain_answers_that_are_wrong_are_as_badly_calibrated_as_can_be():
    assert calibration_error(np.ones(4), np.zeros(4, bool)) == 1
    assert calibration_error(np.zeros(4), np.zeros(4, bool)) == 0


def drawn_attributes(faces: int = 150) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    present = rng.uniform(size=(faces, 3)) < [0.5, 0.1, 0.9]
    return np.clip(present * 0.4 + rng.uniform(0, 0.6, (faces, 3)), 0, 1), present


def test_attributes_are_judged_beside_the_majoritys_answer():
    scores, present = drawn_attributes()
    names = ("smiling", "bald", "young")
    found = attribute_figures(scores, present, names, rounds=30)
    for a, name in enumerate(names):
        row = found["attributes"][name]
        yes = [s >= 0.5 for s in scores[:, a]]
        right = [y == p for y, p in zip(yes, present[:, a], strict=True)]
        of_present = np.mean([r for r, p in zip(right, present[:, a], strict=True) if p])
        of_absent = np.mean([r for r, p in zip(right, present[:, a], strict=True) if not p])
        assert row["accuracy"] == pytest.approx(np.mean(right))
        assert row["balanced_accuracy"] == pytest.approx((of_present + of_absent) / 2)
        assert row["balanced_accuracy_low"] <= row["balanced_accuracy"]
        share = present[:, a].mean()
        assert row["majority_accuracy"] == pytest.approx(max(share, 1 - share))
        assert np.sum(row["confusion"]) == 150
        assert row["confusion"][1][1] == sum(y and p for y, p in zip(yes, present[:, a], strict=1))
    means = [row["accuracy"] for row in found["attributes"].values()]
    assert found["mean_accuracy"] == pytest.approx(np.mean(means))


def test_always_answering_the_majority_is_accurate_and_not_balanced():
    present = np.array([[True], [False], [False], [False]])
    found = attribute_figures(np.zeros((4, 1)), present, ("bald",), rounds=5)
    assert found["mean_accuracy"] == found["majority_mean_accuracy"] == 0.75
    assert found["mean_balanced_accuracy"] == 0.5


def test_an_attribute_that_everyone_has_has_no_balanced_accuracy():
    found = attribute_figures(np.ones((4, 1)), np.ones((4, 1), bool), ("face",), rounds=5)
    assert found["mean_accuracy"] == 1
    assert np.isnan(found["mean_balanced_accuracy"])


def test_the_majority_may_be_the_training_parts():
    present = np.array([[True], [True], [False]])
    found = attribute_figures(
        np.ones((3, 1)), present, ("bald",), majority_A=np.array([False]), rounds=5
    )
    assert found["majority_mean_accuracy"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("scores", "words"),
    [(np.ones((2, 3)), "not both"), (np.full((2, 2), 1.5), r"outside \[0, 1\]")],
)
def test_scores_of_attributes_of_another_form_are_refused(scores, words):
    with pytest.raises(ValueError, match=words):
        attribute_figures(scores, np.ones((2, 2), bool), ("a", "b"))


def test_images_are_brought_to_the_size_that_an_expression_graph_takes(tmp_path):
    graph = open_classifier(classifier(tmp_path / "colour.onnx"))
    grey = np.full((5, 48, 48), 90, np.uint8)
    np.testing.assert_allclose(expression_scores(graph, grey, batch=2), 1 / 3, atol=1e-6)
    red = np.zeros((3, 48, 48, 3), np.uint8)
    red[..., 0] = 200
    assert expression_scores(graph, red).argmax(1).tolist() == [0, 0, 0]


def test_crops_of_another_size_than_an_attribute_graph_takes_are_refused(tmp_path):
    graph = open_classifier(classifier(tmp_path / "colour.onnx"))
    assert attribute_scores(graph, np.zeros((3, 16, 16, 3), np.uint8)).shape == (3, 3)
    with pytest.raises(ValueError, match=r"16 x 16, not \(48, 48, 3\)"):
        attribute_scores(graph, np.zeros((3, 48, 48, 3), np.uint8))
