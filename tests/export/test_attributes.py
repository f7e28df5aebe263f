"""MZTS's way from weights to an artefact that the service accepts."""

from hashlib import sha256

import numpy as np
import pytest
import torch

from export.attributes import attributes_graph, pixels_of, read_weights, write_card, write_graph
from export.check import faults
from export.graph import Pixels
from service.inference.artefact import load_artefact
from tests.export.networks import answer, as_trained, crops_of
from tests.training.crops import drawn_crops, write_set
from training.checkpoint import keep_network
from training.networks.mzts import MZTS

CLASSES = [f"attribute {i}" for i in range(40)]
SHAPE = {"patch": 8, "width": "tiny", "depth": 2, "zones": 2, "memory": "cls"}
ROUND = {**SHAPE, "name": "mzts", "size": [136, 112], "classes": CLASSES, "steps": 3, "batch": 4}
FACTS = {"name": "drawn", "summary": "Sees attributes of drawings.", "licence": "Apache-2.0"}
TEMPERATURES = torch.linspace(0.5, 2, 40).tolist()
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


def test_the_artefact_gives_the_networks_probabilities_a_temperature_each(tmp_path):
    kept, folder, crops = tmp_path / "network.safetensors", tmp_path / "a", crops_of(136, 112)
    network = as_trained(MZTS((136, 112), **SHAPE), crops)
    keep_network(kept, network, [{**ROUND, "pixel_scale": 64.0}])
    write_graph(kept, folder, write_set(drawn_crops(people=4, each=4), tmp_path), TEMPERATURES)
    figures = {"sha256": sha256((folder / "model.onnx").read_bytes()).hexdigest(), "metrics": {}}
    measured = {"min_inter_eye_px": 20, "reliable": dict.fromkeys(CLASSES, True)}
    with pytest.raises(ValueError, match="figures lack reliable"):
        write_card(kept, folder, {**figures, "min_inter_eye_px": 20}, FACTS)
    write_card(kept, folder, {**figures, **measured}, FACTS)
    artefact = load_artefact(folder)
    [scores] = artefact.graphs["model"].run(crops)
    logits = answer(network, crops, scale=64)
    wanted = torch.sigmoid(logits / torch.tensor(TEMPERATURES))
    np.testing.assert_allclose(scores, wanted, atol=1e-5)
    assert artefact.manifest["temperature"] == pytest.approx(TEMPERATURES)
    assert measured.items() <= artefact.manifest.items()
    assert faults(folder) == []


def test_another_number_of_temperatures_than_attributes_is_refused():
    network = MZTS((136, 112), **SHAPE)
    with pytest.raises(ValueError, match="2 temperatures for 40 attributes"):
        attributes_graph(network, Pixels(), crops_of(136, 112), [1.0, 2.0])


def test_weights_that_do_not_tell_their_size_or_classes_are_refused(tmp_path):
    kept = tmp_path / "network.safetensors"
    keep_network(kept, MZTS((136, 112), **SHAPE), [{**SHAPE, "name": "mzts"}])
    with pytest.raises(ValueError, match="does not tell its classes and size"):
        read_weights(kept)


def test_a_round_says_how_pixels_enter():
    assert pixels_of({}) == Pixels((127.5,), (127.5,))
    colours = {"pixel_mean": [123.7, 116.3, 103.5], "pixel_scale": 58.0}
    assert pixels_of(colours) == Pixels((123.7, 116.3, 103.5), (58.0,))
