"""From weights to artefact: the graph that is served is the network that was trained."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from export.recognition import read_weights, recognition_graph, write_card, write_graph
from service.calibration.measure import measure_calibration
from service.errors import ArtefactError
from service.inference.artefact import load_artefact
from tests.training.crops import drawn_crops
from training.checkpoint import keep_network
from training.networks.ecacface import MobileFaceNet
from training.recipes.recognition import ecacface_mobile

CROPS = drawn_crops(people=3, each=2).pixels_NHWC
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "network.safetensors"
    network = MobileFaceNet()
    for module in network.modules():
        if isinstance(module, torch.nn.PReLU):
            torch.nn.init.uniform_(module.weight, -0.5, 0.5)
    keep_network(path, network, [{**asdict(ecacface_mobile()), "steps": 7}])
    return path


@pytest.fixture(scope="module")
def folder(weights, tmp_path_factory):
    """The artefact, with figures of made-up embeddings in the place of measured ones."""
    folder = tmp_path_factory.mktemp("artefact")
    write_graph(weights, folder, CROPS)
    rng = np.random.default_rng(0)
    made_up = rng.normal(size=(40, 1, 8)) + rng.normal(size=(40, 4, 8))
    made_up = (made_up / np.linalg.norm(made_up, axis=2, keepdims=True)).reshape(160, 8)
    figures = {
        "sha256": _sha256(folder / "model.onnx"),
        "metrics": {"lfw": {"accuracy": 0.5}},
        "calibration": measure_calibration(made_up, np.repeat(np.arange(40), 4), rounds=10),
        "lfw_failing_pairs": ["mated 0.100: Ada_0001, Ada_0002"],
    }
    write_card(weights, folder, figures)
    return folder


def _sha256(path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_artefact_is_accepted_by_the_service_and_gives_unit_embeddings(folder):
    artefact = load_artefact(folder)
    [embeddings] = artefact.graphs["model"].run(CROPS)
    assert artefact.space == "ecacface-mobile/1"
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)


def test_the_card_tells_what_the_manifest_holds(folder):
    card = (folder / "CARD.md").read_text()
    for words in ("ecacface-mobile", "Ada_0001", "non-commercial", "1,041 people"):
        assert words in card


def test_the_graph_holds_no_trace_of_the_machine_that_made_it(folder):
    graph = (folder / "model.onnx").read_bytes()
    assert b"site-packages" not in graph
    assert b"ecacface.py" not in graph


def test_another_graph_under_the_same_manifest_is_refused(folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with (tmp_path / "model.onnx").open("ab") as graph:
        graph.write(b"\0")
    with pytest.raises(ArtefactError, match="sha256"):
        load_artefact(tmp_path)


def test_a_card_cannot_be_written_from_figures_of_another_graph(folder, weights):
    manifest = json.loads((folder / "manifest.json").read_text())
    figures = {
        "sha256": "0" * 64,
        "metrics": {},
        "lfw_failing_pairs": [],
        "calibration": manifest["calibration"],
    }
    with pytest.raises(ValueError, match="figures are of 0000"):
        write_card(weights, folder, figures)


def test_weights_of_a_round_before_recipes_named_their_network_are_still_read(tmp_path):
    kept, network = tmp_path / "network.safetensors", MobileFaceNet("eca", 128)
    keep_network(kept, network, [{"name": "old", "attention": "eca", "embedding": 128}])
    read, rounds = read_weights(kept)
    assert read.state_dict().keys() == network.state_dict().keys()
    assert rounds[0]["name"] == "old"


def test_a_network_trained_on_other_pixels_than_the_graph_gives_is_refused(tmp_path):
    kept, recipe = tmp_path / "network.safetensors", ecacface_mobile()
    keep_network(kept, MobileFaceNet(), [asdict(replace(recipe, pixel_scale=128.0))])
    with pytest.raises(ValueError, match=r"trained on \(p - 127.5\) / 128; the graph divides by"):
        read_weights(kept)


def test_a_network_whose_rows_see_each_other_is_never_exported():
    class Mixing(torch.nn.Module):
        def forward(self, x):
            pooled = x.mean((2, 3))
            return torch.cat([pooled, pooled - pooled.mean(0)], 1)

    with pytest.raises(ValueError, match=r"cosine|rows"):
        recognition_graph(Mixing(), CROPS)
