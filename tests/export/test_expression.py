"""PAtt-Lite's way from weights to an artefact that the service accepts."""

import json
from hashlib import sha256

import numpy as np
import pytest
import torch

from export.check import faults
from export.expression import expression_graph, write_card, write_graph
from export.folder import read_facts
from service.inference.artefact import load_artefact
from tests.export.networks import answer, as_trained, crops_of
from tests.training.crops import drawn_crops, write_set
from training.checkpoint import keep_network
from training.networks.patt_lite import PAttLite

CLASSES = ["neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"]
ROUND = {"name": "patt-lite", "size": 80, "classes": CLASSES, "steps": 3, "batch": 4}
FACTS = {"name": "drawn", "summary": "Names expressions of drawings.", "licence": "Apache-2.0"}
CROPS = crops_of(80, 80)
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


def decided(network):
    """The network as trained, and as sure of itself as training makes it."""
    torch.nn.init.normal_(network.classify.weight, std=3)
    return as_trained(network, CROPS)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return decided(PAttLite(8, size=80))


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "network.safetensors"
    keep_network(path, network, [ROUND])
    return path


@pytest.fixture(scope="module")
def folder(weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("artefact")
    crops = write_set(drawn_crops(people=4, each=4), tmp_path_factory.mktemp("crops"))
    write_graph(weights, folder, crops, temperature=1.7)
    return folder


def figures_of(folder):
    graph = (folder / "model.onnx").read_bytes()
    metrics = {"drawings": {"accuracy": 0.25}}
    return {"sha256": sha256(graph).hexdigest(), "metrics": metrics, "min_inter_eye_px": 12.5}


def test_the_artefact_gives_the_networks_distribution_at_its_temperature(weights, folder, network):
    write_card(weights, folder, figures_of(folder), FACTS)
    artefact = load_artefact(folder)
    [scores] = artefact.graphs["model"].run(CROPS)
    np.testing.assert_allclose(scores, (answer(network, CROPS) / 1.7).softmax(1), atol=1e-5)
    assert artefact.task == "expression"
    assert artefact.manifest["classes"] == CLASSES
    assert artefact.manifest["temperature"] == pytest.approx(1.7)
    assert artefact.manifest["min_inter_eye_px"] == 12.5
    assert faults(folder) == []


def test_attention_over_the_batch_is_refused_for_what_it_does():
    with pytest.warns(UserWarning, match="depend on the faces beside it"):
        network = PAttLite(8, size=80, attention="batch")
    with pytest.raises(ValueError, match="must not depend on its neighbours"):
        expression_graph(decided(network), CROPS)


def test_figures_of_another_graph_and_without_metrics_leave_no_manifest(weights, folder, tmp_path):
    (tmp_path / "model.onnx").write_bytes((folder / "model.onnx").read_bytes())
    with pytest.raises(ValueError, match="figures are of 0000"):
        write_card(weights, tmp_path, {**figures_of(folder), "sha256": "0000"}, FACTS)
    with pytest.raises(ValueError, match="figures lack metrics, min_inter_eye_px"):
        write_card(weights, tmp_path, {"sha256": "0000"}, FACTS)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_a_class_too_few_is_refused_before_anything_is_written(network, folder, tmp_path):
    kept, target = tmp_path / "network.safetensors", tmp_path / "artefact"
    target.mkdir()
    (target / "model.onnx").write_bytes((folder / "model.onnx").read_bytes())
    keep_network(kept, as_trained(PAttLite(7, size=80), CROPS), [{**ROUND, "classes": CLASSES[:7]}])
    with pytest.raises(ValueError, match=r"would refuse it: .* 7 classes, 7 of them different"):
        write_card(kept, target, figures_of(target), FACTS)
    assert [file.name for file in target.iterdir()] == ["model.onnx"]


def test_weights_that_do_not_name_their_classes_are_refused(network, tmp_path):
    kept = tmp_path / "network.safetensors"
    keep_network(kept, network, [{"name": "patt-lite", "size": 80}])
    with pytest.raises(ValueError, match=r"network\.safetensors does not name its classes"):
        write_graph(kept, tmp_path / "artefact", tmp_path)
    assert not (tmp_path / "artefact").exists()


@pytest.mark.parametrize(("text", "reason"), [("{", "is not json"), ('{"name": "a"}', "summary")])
def test_facts_that_do_not_say_enough_are_refused(tmp_path, text, reason):
    path = tmp_path / "facts.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=reason):
        read_facts(path)
    path.write_text(json.dumps(FACTS))
    assert read_facts(path) == FACTS
