"""Graphs of both known forms answer; anything else is refused by what was found."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.standin import recognition_graph
from tests.training.crops import drawn_crops
from tests.training.peers import BIAS, WEIGHTS, bars, classifier, fields, graph_of, peer
from training.graphs import gives_raw, open_classifier, open_graph, task_of

CROPS = drawn_crops(people=3, each=2).pixels_NHWC
FLOAT, UINT8 = TensorProto.FLOAT, TensorProto.UINT8


def by_hand(pixels_NHWC: np.ndarray) -> np.ndarray:
    """What `peer` makes of pixels, normalised or not."""
    planes = pixels_NHWC.transpose(0, 3, 1, 2).reshape(-1, 3, 7, 16, 7, 16).mean((3, 5))
    found = planes.reshape(-1, 147) @ WEIGHTS + BIAS
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_a_graph_of_our_contract_gives_unit_embeddings(tmp_path):
    path = tmp_path / "ours.onnx"
    path.write_bytes(recognition_graph(unit=False))
    found = open_graph(path)(CROPS)
    assert found.shape == (6, 512)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_insightfaces_form_is_given_planes_around_zero(tmp_path):
    found = open_graph(peer(tmp_path / "peer.onnx"))(CROPS)
    np.testing.assert_allclose(found, by_hand((CROPS - 127.5) / 127.5), atol=1e-5)


def test_a_graph_that_normalises_by_itself_is_given_raw_pixels(tmp_path):
    found = open_graph(peer(tmp_path / "mxnet.onnx", normalises=True))(CROPS)
    np.testing.assert_allclose(found, by_hand((CROPS - 127.5) / 128), atol=1e-5)


@pytest.mark.parametrize("form", [{"batch": 1}, {"rows": 1}], ids=["declared", "baked in"])
def test_a_graph_for_one_crop_is_asked_one_by_one(tmp_path, form):
    found = open_graph(peer(tmp_path / "one.onnx", **form))(CROPS)
    np.testing.assert_allclose(found, by_hand((CROPS - 127.5) / 127.5), atol=1e-5)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.onnx"):
        open_graph(tmp_path / "nowhere.onnx")


def test_a_file_that_is_no_graph_is_refused(tmp_path):
    path = tmp_path / "text.onnx"
    path.write_text("not a graph")
    with pytest.raises(ValueError, match=r"text\.onnx is no graph"):
        open_graph(path)


IDENTITY = [helper.make_node("Identity", ["x"], ["y"])]


@pytest.mark.parametrize(
    ("kind", "shape", "words"),
    [
        (FLOAT, ["n", 112, 112, 3], r"takes tensor\(float\) \['n', 112, 112, 3\]"),
        (FLOAT, ["n", 3, 160, 160], r"\['n', 3, 160, 160\]"),
        (UINT8, ["n", 136, 112, 3], r"tensor\(uint8\) \['n', 136, 112, 3\]"),
        (TensorProto.FLOAT16, ["n", 3, 112, 112], r"tensor\(float16\)"),
        (FLOAT, ["n", 512], r"\['n', 512\]"),
    ],
)
def test_an_input_of_another_form_is_refused_by_what_it_is(tmp_path, kind, shape, words):
    path = graph_of(tmp_path / "other.onnx", IDENTITY, ("x", kind, shape), ("y", kind, shape))
    with pytest.raises(ValueError, match=words):
        open_graph(path)


def test_an_answer_that_is_no_embedding_is_refused(tmp_path):
    shape = ["n", 3, 112, 112]
    path = graph_of(tmp_path / "map.onnx", IDENTITY, ("x", FLOAT, shape), ("y", FLOAT, shape))
    with pytest.raises(ValueError, match=r"answers float32 \[1, 3, 112, 112\]"):
        open_graph(path)


def test_answers_that_are_no_numbers_are_refused(tmp_path):
    path = peer(tmp_path / "broken.onnx")
    model = onnx.load(path)
    model.graph.initializer[1].CopyFrom(
        numpy_helper.from_array(np.full_like(WEIGHTS, np.nan), "weights")
    )
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=r"broken\.onnx answers numbers that are not finite"):
        open_graph(path)


def test_a_classifier_says_what_it_takes_and_gives(tmp_path):
    network = open_classifier(classifier(tmp_path / "colour.onnx"))
    assert (network.height, network.width, network.classes) == (16, 16, 3)
    blue = np.zeros((2, 16, 16, 3), np.uint8)
    blue[..., 2] = 200
    assert network.scores(blue).argmax(1).tolist() == [2, 2]


def grey_classifier(path):
    """In the form of FERPlus's authors: grey pixels, 64 x 64, one image, to logits of eight
    classes; the first of them is the mean pixel / 100, the others zero."""
    node = helper.make_node
    nodes = [
        node("ReduceMean", ["Input3", "axes"], ["mean"], keepdims=0),
        node("MatMul", ["mean", "first"], ["Plus692_Output_0"]),
    ]
    entry, answer = ("Input3", FLOAT, [1, 1, 64, 64]), ("Plus692_Output_0", FLOAT, [1, 8])
    first = np.eye(1, 8, dtype=np.float32) / np.float32(100)
    return graph_of(path, nodes, entry, answer, axes=np.array([2, 3], np.int64), first=first)


def test_the_form_of_ferpluss_authors_is_given_grey_pixels_and_its_logits_become_scores(tmp_path):
    network = open_classifier(grey_classifier(tmp_path / "ferplus.onnx"))
    assert (network.height, network.width, network.classes) == (64, 64, 8)
    crops = np.stack([np.full((64, 64, 3), value, np.uint8) for value in (0, 200)])
    scores = network.scores(crops)
    np.testing.assert_allclose(scores[0], 1 / 8, atol=1e-6)
    assert scores[1, 0] == pytest.approx(np.exp(2) / (np.exp(2) + 7), rel=1e-5)


def test_a_graphs_form_tells_its_task(tmp_path):
    tasks = {
        "expression": bars(tmp_path / "a.onnx"),
        "attributes": fields(tmp_path / "b.onnx"),
        "recognition": peer(tmp_path / "c.onnx"),
    }
    assert {task: task_of(graph) for task, graph in tasks.items()} == {t: t for t in tasks}
    assert task_of(grey_classifier(tmp_path / "d.onnx")) == "expression"


def test_crops_that_a_graph_cannot_take_are_a_clear_error(tmp_path):
    network = open_classifier(classifier(tmp_path / "colour.onnx"))
    with pytest.raises(ValueError, match=r"cannot answer \(1, 8, 8, 3\)"):
        network.scores(np.zeros((1, 8, 8, 3), np.uint8))


def seven(path, answer: str):
    """Scores or logits of seven classes, from crops in recognition's form."""
    node = helper.make_node
    nodes = [
        node("Cast", ["crops"], ["real"], to=FLOAT),
        node("ReduceMean", ["real", "axes"], ["mean"], keepdims=0),
        node("MatMul", ["mean", "mix"], ["logits" if answer == "softmax" else answer]),
    ]
    if answer == "softmax":
        nodes.append(node("Softmax", ["logits"], ["softmax"]))
    mix = np.random.default_rng(0).standard_normal((3, 12 if answer == "softmax" else 7))
    width = mix.shape[1]
    entry, out = ("crops", UINT8, ["n", 112, 112, 3]), (answer, FLOAT, ["n", width])
    axes = np.array([1, 2], np.int64)
    return graph_of(path, nodes, entry, out, axes=axes, mix=mix.astype(np.float32) / 99)


@pytest.mark.parametrize(("answer", "count"), [("scores", 7), ("logits7", 7), ("softmax", 12)])
def test_a_graph_of_classes_is_not_measured_as_recognition(tmp_path, answer, count):
    graph = seven(tmp_path / "emotions.onnx", answer)
    said = rf"emotions\.onnx gives {count} scores of classes .*cannot be measured as recognition"
    evaluated = task_of if answer == "scores" else open_graph
    with pytest.raises(ValueError, match=said):
        evaluated(graph)


def test_raw_embeddings_are_those_before_the_graphs_last_normalisation(tmp_path):
    ours, plain = tmp_path / "ours.onnx", tmp_path / "plain.onnx"
    ours.write_bytes(recognition_graph())
    plain.write_bytes(recognition_graph(unit=False))
    assert gives_raw(ours)
    raw = open_graph(ours, raw=True)(CROPS)
    np.testing.assert_allclose(raw, open_graph(plain, raw=True)(CROPS), rtol=1e-4, atol=1e-5)
    lengths = np.linalg.norm(raw, axis=1, keepdims=True)
    np.testing.assert_allclose(raw / lengths, open_graph(ours)(CROPS), atol=1e-5)
    assert np.abs(lengths - 1).max() > 0.01


def test_a_length_that_is_divided_away_step_by_step_is_found_too(tmp_path):
    ours = tmp_path / "ours.onnx"
    ours.write_bytes(recognition_graph())
    model = onnx.load(ours)
    last = model.graph.node.pop()
    for operator, *places in (
        ("Mul", [last.input[0], last.input[0]], ["squares"]),
        ("ReduceSum", ["squares", "across"], ["sum"]),
        ("Sqrt", ["sum"], ["length"]),
        ("Div", [last.input[0], "length"], ["embeddings"]),
    ):
        model.graph.node.append(helper.make_node(operator, *places))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1]), "across"))
    (tmp_path / "divided.onnx").write_bytes(model.SerializeToString())
    found = open_graph(tmp_path / "divided.onnx", raw=True)(CROPS)
    np.testing.assert_allclose(found, open_graph(ours, raw=True)(CROPS), rtol=1e-4)
