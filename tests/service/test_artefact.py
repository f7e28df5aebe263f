"""service/inference/artefact.py: what is not what its manifest says is refused, with the reason."""

import base64
import hashlib
import json
import math
from pathlib import Path

import numpy as np
import onnx
import pytest

from service.errors import ArtefactError
from service.inference.artefact import (
    describe_graph,
    golden_crops,
    golden_pattern,
    load_artefact,
    space_id,
)
from service.settings import SHIPPED_MODELS
from tests.standin import (
    SPACE,
    recognition_graph,
    scores_graph,
    write_classifier,
    write_recognition,
)


def changed_manifest(folder: Path, **changes: object) -> Path:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


def test_an_artefact_is_loaded_with_its_manifest_and_a_session_that_runs(tmp_path: Path) -> None:
    artefact = load_artefact(write_recognition(tmp_path / "a"))
    assert (artefact.name, artefact.task, artefact.space) == ("stand-in", "recognition", SPACE)
    [embeddings] = artefact.graphs["model"].run(golden_crops())
    assert embeddings.shape == (2, 512)
    assert np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)


def test_the_golden_crops_are_the_same_for_ever() -> None:
    crops = golden_crops()
    assert crops.dtype == np.uint8
    assert crops.shape == (2, 112, 112, 3)
    assert int(crops.astype(np.int64).sum()) == 9_600_936
    assert crops[1, 111, 110].tolist() == [187, 229, 15]
    assert np.array_equal(golden_pattern((1, 112, 112, 3)), crops[:1])


def test_a_changed_graph_is_refused_by_its_hash(tmp_path: Path) -> None:
    folder = write_recognition(tmp_path / "a")
    graph = bytearray((folder / "model.onnx").read_bytes())
    graph[-1] ^= 1
    (folder / "model.onnx").write_bytes(graph)
    with pytest.raises(ArtefactError, match="sha256") as refused:
        load_artefact(folder)
    assert refused.value.folder == str(folder)


def test_weights_in_a_file_of_their_own_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest's hash does not cover them: ONNX Runtime would take them from where it runs."""
    folder = write_recognition(tmp_path / "a")
    path = folder / "model.onnx"
    model = onnx.load(path)
    for name in ("weights", str(folder / "weights"), "../a/weights"):
        for tensor in model.graph.initializer:
            tensor.data_location = onnx.TensorProto.EXTERNAL
            del tensor.external_data[:]
            place = {"location": name, "offset": "0", "length": str(len(tensor.raw_data))}
            for key, value in place.items():
                tensor.external_data.add(key=key, value=value)
        assert len(model.graph.initializer) > 0
        (folder / "weights").write_bytes(bytes(1 << 22))
        path.write_bytes(model.SerializeToString())
        changed_manifest(folder, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
        monkeypatch.chdir(folder)
        with pytest.raises(ArtefactError, match="external data"):
            load_artefact(folder)


def test_a_graph_that_answers_otherwise_than_its_golden_output_is_refused(tmp_path: Path) -> None:
    other = np.roll(np.eye(2, 512, dtype="<f4"), 3, axis=1)
    golden = {
        "input": {"crops": {"dtype": "uint8", "shape": [2, 112, 112, 3]}},
        "outputs": {
            "embeddings": {
                "dtype": "float32",
                "shape": [2, 512],
                "base64": base64.b64encode(other.tobytes()).decode(),
            }
        },
    }
    with pytest.raises(ArtefactError, match="golden output differ: cosine"):
        load_artefact(write_recognition(tmp_path / "a", golden=golden))


def test_a_graph_whose_rows_depend_on_their_neighbours_is_refused(tmp_path: Path) -> None:
    folder = write_recognition(tmp_path / "a", recognition_graph(coupled=True))
    with pytest.raises(ArtefactError, match="alone and beside others differ"):
        load_artefact(folder)


def test_a_space_s_id_that_is_not_of_the_graph_is_refused_with_the_id_that_is(
    tmp_path: Path,
) -> None:
    folder = write_recognition(tmp_path / "first")
    sha256 = json.loads((folder / "manifest.json").read_text())["sha256"]
    own = space_id("stand-in", sha256)
    assert own == f"stand-in/{sha256[:16]}"
    assert load_artefact(changed_manifest(folder, space=own, space_of=None)).space == own
    again = recognition_graph(seed=8)
    for said in ({"space": own}, {"space": SPACE}, {"space": SPACE, "space_of": sha256}):
        other = write_recognition(tmp_path / "again", again, **{"space_of": None, **said})
        with pytest.raises(ArtefactError, match="which is not of the graph") as refused:
            load_artefact(other)
        assert repr(said["space"]) in refused.value.reason
        assert space_id("stand-in", hashlib.sha256(again).hexdigest()) in refused.value.reason


def test_the_shipped_weights_keep_the_id_that_galleries_were_pinned_to() -> None:
    folder = SHIPPED_MODELS / "ecacface-mobile"
    manifest = json.loads((folder / "manifest.json").read_text())
    artefact = load_artefact(folder)
    if manifest["sha256"].startswith("02052afaf48dccfc"):  # other weights are of another space
        assert artefact.space == "ecacface-mobile/5"
    else:
        assert artefact.space == space_id("ecacface-mobile", manifest["sha256"])


def test_embeddings_that_are_not_of_unit_length_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="unit length"):
        load_artefact(write_recognition(tmp_path / "a", recognition_graph(unit=False)))


def test_a_graph_of_another_shape_than_the_task_asks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="the task asks for"):
        load_artefact(write_recognition(tmp_path / "a", recognition_graph(width=128)))


def test_bytes_that_are_no_graph_are_refused(tmp_path: Path) -> None:
    folder = write_recognition(tmp_path / "a")
    (folder / "model.onnx").write_bytes(b"no graph")
    digest = hashlib.sha256(b"no graph").hexdigest()
    with pytest.raises(ArtefactError, match="no graph that can run"):
        load_artefact(changed_manifest(folder, sha256=digest))


def golden(**tensor: object) -> dict[str, object]:
    return {"input": {"crops": tensor}, "outputs": {}}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"task": "gait"}, "its task is 'gait'"),
        ({"space": 7}, "lacks space"),
        ({"licence": None}, "lacks licence"),
        ({"golden": {}}, "golden input or output of model.onnx is unusable"),
        ({"golden": golden(dtype="uint8", shape=[2, 8, 8, 3])}, "not {'dtype'"),
        ({"golden": golden(dtype="uint8", shape=[2])}, "unusable"),
        ({"golden": golden(dtype="uint8", shape=[2, 112, 112, 3])}, "lacks a golden output"),
        ({"golden": golden(dtype="uint8", shape=[1], base64="!")}, "unusable"),
        ({"input": {}}, "the manifest says"),
    ],
)
def test_a_manifest_that_is_wrong_is_refused_with_the_reason(
    tmp_path: Path, changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(ArtefactError, match=reason):
        load_artefact(changed_manifest(write_recognition(tmp_path / "a"), **changes))


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000])
def test_a_manifest_that_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    folder = write_recognition(tmp_path / "a")
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ArtefactError, match=r"manifest\.json"):
        load_artefact(folder)


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
def test_a_missing_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    folder = write_recognition(tmp_path / "a")
    (folder / name).unlink()
    with pytest.raises(ArtefactError, match=name):
        load_artefact(folder)


EXPRESSION = scores_graph(height=48, width=48, classes=8)


def test_an_expression_graph_chooses_the_side_of_its_crops(tmp_path: Path) -> None:
    artefact = load_artefact(write_classifier(tmp_path / "a", "expression", EXPRESSION, (48, 48)))
    [scores] = artefact.graphs["model"].run(np.zeros((3, 48, 48, 3), np.uint8))
    assert scores.shape == (3, len(artefact.manifest["classes"]))


ATTRIBUTES = scores_graph(height=136, width=112, classes=40, distribution=False)
RELIABLE = {f"class {i}": i != 7 for i in range(40)}


def test_an_attribute_graph_takes_the_wide_crops(tmp_path: Path) -> None:
    folder = write_classifier(tmp_path / "a", "attributes", ATTRIBUTES, (136, 112))
    assert load_artefact(changed_manifest(folder, reliable=RELIABLE)).task == "attributes"


@pytest.mark.parametrize("least", [None, "16", True, -1, math.nan, math.inf])
def test_a_classifier_without_the_smallest_face_that_it_can_tell_is_refused(
    tmp_path: Path, least: object
) -> None:
    folder = write_classifier(tmp_path / "a", "expression", EXPRESSION, (48, 48))
    with pytest.raises(ArtefactError, match="lacks min_inter_eye_px"):
        load_artefact(changed_manifest(folder, min_inter_eye_px=least))
    assert load_artefact(changed_manifest(folder, min_inter_eye_px=0)).task == "expression"


@pytest.mark.parametrize(
    ("reliable", "reason"),
    [
        (None, "lacks reliable"),
        (["class 0"], "lacks reliable"),
        ({"class 0": True}, "of every class"),
        ({**RELIABLE, "class 40": True}, "and no other"),
        ({**RELIABLE, "class 3": 1}, "neither true nor false in reliable of class 3"),
    ],
)
def test_attributes_that_do_not_say_which_of_them_are_reliable_are_refused(
    tmp_path: Path, reliable: object, reason: str
) -> None:
    folder = write_classifier(tmp_path / "a", "attributes", ATTRIBUTES, (136, 112))
    with pytest.raises(ArtefactError, match=reason):
        load_artefact(changed_manifest(folder, reliable=reliable))


@pytest.mark.parametrize(
    ("graph", "crop"),
    [
        (scores_graph(height=48, width=40, classes=8), (48, 40)),
        (scores_graph(height=48, width=48, classes=7), (48, 48)),
    ],
    ids=["not square", "seven scores"],
)
def test_an_expression_graph_of_another_form_is_refused(
    tmp_path: Path, graph: bytes, crop: tuple[int, int]
) -> None:
    classes = [f"class {i}" for i in range(8)]
    folder = write_classifier(tmp_path / "a", "expression", graph, crop, classes=classes)
    with pytest.raises(ArtefactError, match="the task asks for"):
        load_artefact(folder)


def test_expression_scores_that_are_no_distribution_are_refused(tmp_path: Path) -> None:
    graph = scores_graph(height=48, width=48, classes=8, distribution=False)
    with pytest.raises(ArtefactError, match="do not sum to 1"):
        load_artefact(write_classifier(tmp_path / "a", "expression", graph, (48, 48)))


@pytest.mark.parametrize(
    ("classes", "reason"),
    [
        (None, "lacks classes"),
        ("abcdefgh", "lacks classes"),
        (["a", "b", "c", "d", "e", "f", "g", ""], "lacks classes"),
        (["a", "b", "c", "d", "e", "f", "g"], "7 classes, 7 of them different; the graph gives 8"),
        (["a", "b", "c", "d", "e", "f", "g", "g"], "8 classes, 7 of them different"),
    ],
)
def test_classes_that_do_not_name_the_scores_are_refused(
    tmp_path: Path, classes: object, reason: str
) -> None:
    folder = write_classifier(tmp_path / "a", "expression", EXPRESSION, (48, 48), classes=classes)
    with pytest.raises(ArtefactError, match=reason):
        load_artefact(folder)


def test_a_detector_needs_all_its_graphs(tmp_path: Path) -> None:
    folder = write_recognition(tmp_path / "a", task="detection")
    with pytest.raises(ArtefactError, match="needs the graphs pnet, rnet, onet"):
        load_artefact(folder)


def test_what_describe_graph_writes_is_what_load_artefact_holds_it_to() -> None:
    entry = describe_graph(recognition_graph(), (2, 112, 112, 3))
    assert entry["input"] == {"crops": {"dtype": "uint8", "shape": ["n", 112, 112, 3]}}
    assert entry["outputs"] == {"embeddings": {"dtype": "float32", "shape": ["n", 512]}}
    assert entry["golden"]["outputs"]["embeddings"]["shape"] == [2, 512]


def test_the_detector_that_ships_is_what_its_manifest_says() -> None:
    artefact = load_artefact(SHIPPED_MODELS / "mtcnn")
    assert artefact.task == "detection"
    assert list(artefact.graphs) == ["pnet", "rnet", "onet"]
