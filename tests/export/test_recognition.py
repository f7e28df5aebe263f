"""From weights to artefact: the graph that is served is the network that was trained."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from export.card import card
from export.check import faults
from export.folder import manifest_text
from export.recognition import (
    ABLATION,
    groups_tested,
    main,
    populations,
    read_weights,
    write_card,
    write_graph,
)
from service.calibration.measure import (
    measure_calibration,
    measure_population,
    with_populations,
)
from service.errors import ArtefactError
from service.inference.artefact import load_artefact
from tests.export.networks import answer, as_trained
from tests.training.crops import drawn_crops, write_set
from training.checkpoint import keep_network
from training.networks.ecacface import MobileFaceNet
from training.recipes.recognition import ecacface_mobile

CROPS = drawn_crops(people=3, each=2).pixels_NHWC
RECIPE = replace(ecacface_mobile(), attention="none", pixel_scale=128.0, steps=7)
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = MobileFaceNet("none")
    for module in network.modules():
        if isinstance(module, torch.nn.PReLU):
            torch.nn.init.uniform_(module.weight, -0.5, 0.5)
    return as_trained(network, CROPS, scale=128)


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "network.safetensors"
    keep_network(path, network, [asdict(RECIPE)])
    return path


@pytest.fixture(scope="module")
def folder(weights, tmp_path_factory):
    return _made(weights, tmp_path_factory.mktemp("artefact"), tmp_path_factory.mktemp("crops"))


def _made(weights, folder, crops):
    """The artefact, with figures of made-up embeddings in the place of measured ones."""
    folder.mkdir(exist_ok=True)
    write_graph(weights, folder, write_set(drawn_crops(people=4, each=4), crops))
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
    assert "calibration.png" not in (folder / "CARD.md").read_text()  # it is not there
    (folder / "calibration.png").write_bytes(b"a picture")
    write_card(weights, folder, figures)
    assert "](calibration.png)" in (folder / "CARD.md").read_text()
    return folder


def _sha256(path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_artefact_gives_the_networks_unit_embeddings_of_the_pixels_it_was_trained_on(
    folder, network
):
    artefact = load_artefact(folder)
    [embeddings] = artefact.graphs["model"].run(CROPS)
    wanted = torch.nn.functional.normalize(answer(network, CROPS, scale=128))
    assert artefact.space == f"ecacface-mobile/{_sha256(folder / 'model.onnx')[:16]}"
    np.testing.assert_allclose(embeddings, wanted, atol=1e-4)
    assert faults(folder) == []


def test_weights_that_were_trained_again_are_of_another_embedding_space(folder, tmp_path):
    again = as_trained(MobileFaceNet("none"), CROPS, scale=128)
    keep_network(tmp_path / "again.safetensors", again, [asdict(RECIPE)])
    other = _made(tmp_path / "again.safetensors", tmp_path / "artefact", tmp_path)
    before, after = load_artefact(folder), load_artefact(other)
    assert before.name == after.name
    assert before.space != after.space


def test_the_card_quotes_the_ablation_which_says_whether_esca_helps(folder):
    quoted = json.loads((folder / "manifest.json").read_bytes())["ablation"]
    assert quoted == json.loads(ABLATION.read_bytes())["says"]
    assert any("ESCA in place of no attention" in sentence for sentence in quoted)
    assert all(sentence in (folder / "CARD.md").read_text() for sentence in quoted)


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


def test_what_cannot_be_exported_ends_the_command_with_a_sentence(tmp_path, monkeypatch):
    text, other = tmp_path / "text.safetensors", tmp_path / "other.safetensors"
    text.write_text("no weights")
    keep_network(other, MobileFaceNet("none", 128), [asdict(ecacface_mobile())])
    for weights, message in ((text, "holds no weights"), (other, "holds another network")):
        command = ["graph", weights, tmp_path / "out", "--crops", tmp_path]
        monkeypatch.setattr("sys.argv", ["export.recognition", *map(str, command)])
        with pytest.raises(SystemExit, match=rf"{weights.name} {message}"):
            main()
    assert not (tmp_path / "out").exists()


def test_weights_of_another_recipe_need_their_facts_said(network, folder, tmp_path):
    kept = tmp_path / "network.safetensors"
    keep_network(
        kept, network, [{**asdict(ecacface_mobile()), "attention": "none", "name": "mine"}]
    )
    figures = dict.fromkeys(("sha256", "metrics", "calibration", "lfw_failing_pairs"))
    with pytest.raises(ValueError, match=r"trained by mine: say its facts \(--facts\)"):
        write_card(kept, folder, figures)
    with pytest.raises(ValueError, match="figures lack metrics"):
        write_card(kept, folder, {key: None for key in figures if key != "metrics"})


def test_the_card_has_the_populations_side_by_side_and_what_a_test_set_gave():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 8))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    people = measure_calibration(rows[:160], np.repeat(np.arange(40), 4), rounds=10)
    visitors = {"data": "drawn", "predicted": True, **measure_population(rows[160:], rounds=10)}
    calibration = with_populations(people, {"visitors": visitors})
    row = {"people": 40, "false_matches": 7, "fmr": 0.0123}
    fmr = {name: {"a": row} for name in ("race", "sex", "age")} | {"all": {"all": row}}
    graph = {
        "probe": {"features": "x", "fitted to": "y", "accuracy": {"race": 0.65}},
        "tested_groups": {
            "data": "drawn too",
            "thresholds": {"worst": {"similarity": 0.7}},
            "fmr": {"worst": {"mirrored": fmr}},
        },
    }
    figures = {"calibration": calibration, "graphs": [graph]}
    page = card({"name": "n", **populations(figures), **groups_tested(figures), **figures})
    for name in ("calibration", "visitors"):
        assert f"| {name} | " in page
    assert "accuracy there: race 65.0%" in page
    assert "| race a | 0.012 |" in page
    assert "at 0.700, mirrored, worst" in page
    assert "curve" not in page
    assert populations({"calibration": people}) == groups_tested({}) == {}


def test_a_manifest_has_each_curve_on_one_line_and_is_the_same_json():
    manifest = {"curve": {"fmr": [1.0, 0.5, 1e-07]}, "rows": [{"a": [1, 2]}], "words": ["a 1", "b"]}
    text = manifest_text(manifest)
    assert json.loads(text) == manifest
    assert '"fmr": [1.0, 0.5, 1e-07]' in text
    assert text.count("\n") == len(json.dumps(manifest, indent=1).splitlines()) - 7
