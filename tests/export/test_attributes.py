"""MZTS's way from weights to an artefact that the service accepts."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from export import classifier
from export.attributes import CROP, TASK, Middle, attributes_graph, read_weights
from export.check import faults
from export.classifier import make, write_card
from export.kept import Fitted, fitted_of
from service.inference.artefact import load_artefact
from tests.export.networks import answer, as_trained, crops_of
from tests.training.faces import drawn_attributes, write_celeba
from training.attributes import network_of
from training.checkpoint import keep_network
from training.classification import logits_of
from training.data.attributes import NAMES
from training.data.framed import frame, framed
from training.networks.mzts import MZTS
from training.recipes.attributes import mzts, mzts_hybrid

RECIPE = replace(mzts(), depth=2, zones=2, faces=321)
CROPS = crops_of(*CROP)
SILENT = {"say": lambda _: None}
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def network():
    """Of each attribute it says yes to half of what is drawn."""
    torch.manual_seed(0)
    network = network_of(RECIPE)
    torch.nn.init.normal_(network.heads[-1][-1].weight)
    network = as_trained(network, np.stack([frame(crop, RECIPE.size) for crop in CROPS]))
    logits = logits_of(network, framed(drawn_attributes(20).pixels, RECIPE.size))
    with torch.no_grad():
        network.heads[-1][-1].bias -= torch.from_numpy(np.median(logits, axis=0))
    return network


@pytest.fixture(scope="module")
def made(network, tmp_path_factory):
    """(weights, what is kept, the artefact's folder), made the whole way; labels of the set are
    what the network sees, but for those of one attribute and some of all."""
    run, data = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("data")
    folder = tmp_path_factory.mktemp("models") / "mzts"
    rng, sets = np.random.default_rng(0), []
    for seed, (part, count) in enumerate({"train": 2, "validation": 40, "test": 20}.items()):
        drawn = drawn_attributes(count, part, seed)
        seen = logits_of(network, framed(drawn.pixels, RECIPE.size)) > 0
        mistaken = rng.random(seen.shape) < 0.25
        mistaken[:, NAMES.index("Bald")] = np.arange(count) % 2
        sets.append(replace(drawn, labels_NA=seen ^ mistaken))
    write_celeba(data / "celeba", *sets)
    weights, kept = run / "network.safetensors", run / "mzts.safetensors"
    keep_network(weights, network, [asdict(RECIPE)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "ABLATIONS", tmp_path_factory.mktemp("docs"))
        make(TASK, weights, kept, folder, data, **SILENT)
    return weights, kept, folder


def test_the_artefact_gives_the_kept_networks_probabilities_at_its_temperatures(made):
    _, kept, folder = made
    artefact = load_artefact(folder)
    [scores] = artefact.graphs["model"].run(CROPS)
    network, _, _ = read_weights(kept)
    logits = answer(network, np.stack([frame(crop, RECIPE.size) for crop in CROPS]))
    fitted = fitted_of(kept)
    logits = logits / torch.tensor(fitted.temperature) - torch.tensor(fitted.shift)
    np.testing.assert_allclose(scores, torch.sigmoid(logits), atol=5e-5)
    assert artefact.manifest["classes"] == list(NAMES)
    assert faults(folder) == []


def test_a_faces_scores_are_the_same_alone_in_any_batch_and_in_any_order(made):
    run = load_artefact(made[2]).graphs["model"].run
    [together] = run(CROPS)
    order = np.random.default_rng(0).permutation(len(CROPS))
    np.testing.assert_allclose(run(CROPS[order])[0], together[order], rtol=0, atol=1e-5)
    for size in (1, 2, 5):
        parts = [run(CROPS[i : i + size])[0] for i in range(0, len(CROPS), size)]
        np.testing.assert_allclose(np.concatenate(parts), together, rtol=0, atol=1e-5)
    assert np.ptp(together, axis=0).max() > 0.01


def test_figures_and_card_say_the_same_of_every_attribute(made):
    weights, _, folder = made
    figures = json.loads(weights.with_name("figures.json").read_text())
    manifest = json.loads((folder / "manifest.json").read_text())
    page = (folder / "CARD.md").read_text().splitlines()
    assert manifest["reliable"] == figures["reliable"]
    assert not manifest["reliable"]["Bald"]
    assert sum(manifest["reliable"].values()) > 20
    assert manifest["min_inter_eye_px"] == figures["min_inter_eye_px"]
    for name, row in figures["attributes"].items():
        [line] = [line for line in page if line.startswith(f"| {name} | {row['reliable']} ")]
        cells = [cell.strip() for cell in line.split("|")[2:-1]]
        assert cells == [f"{v:.6g}" if isinstance(v, float) else str(v) for v in row.values()]
    for row in figures["metrics"].values():
        assert any(f"| {row['mean_balanced_accuracy']:.6g} |" in line for line in page)
    told = manifest["calibration_of_scores"]
    assert f"| share | {told['share']:.6g} |" in page
    assert set(told["figures there"]) == {"as learnt", "calibrated", "calibrated and adjusted"}
    assert any("321 faces of CelebA's training partition" in line for line in page)
    assert {f"{name}.png" for name in ("reliability", "face-size")} == set(manifest["pictures"])
    without = {name: value for name, value in figures.items() if name != "reliable"}
    with pytest.raises(ValueError, match="figures lack reliable"):
        write_card(TASK, made[1], folder, without)


def test_another_number_of_temperatures_than_attributes_is_refused(network):
    with pytest.raises(ValueError, match="temperature: 2 numbers for 40 attributes"):
        attributes_graph(network, CROPS, Fitted([1.0, 2.0], {}))
    with pytest.raises(ValueError, match="shift: 1 numbers for 40 attributes"):
        attributes_graph(network, CROPS, Fitted(1.0, {}, [0.5]))


def test_weights_of_a_mobilenet_stem_are_read_as_such(tmp_path):
    kept, hybrid = tmp_path / "network.safetensors", replace(mzts_hybrid(), depth=2, zones=2)
    trained = network_of(hybrid)
    keep_network(kept, trained, [asdict(hybrid)])
    network, rounds, classes = read_weights(kept)
    assert rounds == json.loads(json.dumps([asdict(hybrid)]))
    assert classes == list(NAMES)
    assert not network.training
    for name, tensor in trained.state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor)
    assert "on the maps of a MobileNetV1" in TASK.facts(rounds)["summary"]


def test_weights_that_do_not_tell_their_size_or_classes_are_refused(tmp_path):
    kept = tmp_path / "network.safetensors"
    few = MZTS((128, 112), width="tiny", depth=2, zones=2, attributes=7)
    told = {**asdict(RECIPE), "stem": "patches"}
    keep_network(kept, few, [told])
    with pytest.raises(ValueError, match="does not name its 7 attributes"):
        read_weights(kept)
    keep_network(kept, few, [{name: told[name] for name in told if name != "size"}])
    with pytest.raises(ValueError, match="does not tell its size"):
        read_weights(kept)
    keep_network(kept, few.blocks, [told])
    with pytest.raises(ValueError, match="holds no MZTS: mzts trained it"):
        read_weights(kept)


@pytest.mark.parametrize(("size", "words"), [((144, 112), "not lie in"), ((128, 96), "cover more")])
def test_a_size_that_the_wide_crop_does_not_just_cover_is_refused(network, size, words):
    with pytest.raises(ValueError, match=words):
        Middle(network, CROP, size)
