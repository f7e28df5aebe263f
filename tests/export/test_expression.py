"""PAtt-Lite's way from weights to an artefact that the service accepts."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from export import classifier
from export.check import faults
from export.classifier import keep, make, write_card, write_graph
from export.expression import TASK, expression_graph, read_weights
from export.kept import Fitted, fitted_of, halved
from service.inference.artefact import load_artefact
from tests.export.networks import answer, as_trained, crops_of
from tests.training.faces import drawn_expressions, write_ferplus
from training.checkpoint import keep_network
from training.classification import logits_of
from training.data.expressions import CLASSES
from training.data.framed import framed
from training.networks.patt_lite import PAttLite

ROUND = {"name": "patt-lite", "size": 80, "faces": 1234, "steps": 3, "batch": 4}
FACTS = {"name": "drawn", "summary": "Names expressions of drawings.", "licence": "Apache-2.0"}
CROPS = crops_of(80, 80)
SILENT = {"say": lambda _: None}
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
def data(network, tmp_path_factory):
    """ferplus/, its validation part half of it named by the network itself."""
    folder = tmp_path_factory.mktemp("data")
    parts = ("train", "validation", "test")
    sets = [drawn_expressions(4, part, seed) for seed, part in enumerate(parts)]
    answers = logits_of(network, framed(sets[1].pixels, (80, 80))).argmax(1)
    votes = np.where(np.arange(32) % 2, answers, sets[1].labels_N)
    sets[1] = replace(sets[1], votes_NK=10 * np.eye(8, dtype=int)[votes])
    write_ferplus(folder / "ferplus", *sets)
    return folder


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "network.safetensors"
    keep_network(path, network, [ROUND])
    return path


@pytest.fixture(scope="module")
def made(weights, data, tmp_path_factory):
    """(what is kept, the artefact's folder), made the whole way."""
    kept = tmp_path_factory.mktemp("weights") / "patt-lite.safetensors"
    folder = tmp_path_factory.mktemp("models") / "patt-lite"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "ABLATIONS", tmp_path_factory.mktemp("docs"))
        make(TASK, weights, kept, folder, data, **SILENT)
    return kept, folder


def figures_of(weights):
    return json.loads(weights.with_name("figures.json").read_text())


def test_the_artefact_gives_the_kept_networks_distribution_at_its_temperature(made):
    kept, folder = made
    artefact = load_artefact(folder)
    [scores] = artefact.graphs["model"].run(CROPS)
    network, _, _ = read_weights(kept)
    temperature = fitted_of(kept).temperature
    assert 0.06 < temperature < 5
    np.testing.assert_allclose(scores, (answer(network, CROPS) / temperature).softmax(1), atol=1e-5)
    assert artefact.task == "expression"
    assert artefact.manifest["classes"] == list(CLASSES)
    assert artefact.manifest["temperature"] == pytest.approx(temperature)
    assert faults(folder) == []


def test_a_faces_scores_are_the_same_alone_in_any_batch_and_in_any_order(made):
    run = load_artefact(made[1]).graphs["model"].run
    [together] = run(CROPS)
    order = np.random.default_rng(0).permutation(len(CROPS))
    np.testing.assert_allclose(run(CROPS[order])[0], together[order], rtol=0, atol=1e-5)
    for size in (1, 2, 5):
        parts = [run(CROPS[i : i + size])[0] for i in range(0, len(CROPS), size)]
        np.testing.assert_allclose(np.concatenate(parts), together, rtol=0, atol=1e-5)
    # A face among seven that are all of one kind, as the published evaluation had them.
    [beside] = run(np.concatenate([CROPS[:1], np.repeat(CROPS[1:2], 7, axis=0)]))
    np.testing.assert_allclose(beside[0], together[0], rtol=0, atol=1e-5)
    assert np.ptp(together, axis=0).max() > 0.01


def test_the_kept_weights_are_half_as_large_and_exactly_what_the_graph_was_made_of(made, weights):
    kept, _ = made
    tensors, full = load_file(kept), load_file(weights)
    for name, tensor in full.items():
        halves = tensor.is_floating_point() and tensor.ndim >= 2
        assert tensors[name].dtype == (torch.float16 if halves else tensor.dtype)
        assert torch.equal(tensors[name], tensor.half() if halves else tensor)
    assert kept.stat().st_size < 0.6 * weights.stat().st_size


def test_figures_and_card_say_the_same_and_pictures_lie_beside_it(made, weights):
    _, folder = made
    figures, page = figures_of(weights), (folder / "CARD.md").read_text()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert figures["sha256"] == manifest["sha256"]
    for name in ("metrics", "confusion", "min_inter_eye_px"):
        assert manifest[name] == figures[name]
    for name, row in figures["metrics"].items():
        [line] = [line for line in page.splitlines() if line.startswith(f"| {name} |")]
        cells = [cell.strip() for cell in line.split("|")[2:-1]]
        assert cells == [f"{v:.6g}" if isinstance(v, float) else str(v) for v in row.values()]
    full = figures["face_size"]["curves"]["FERPlus validation"][-1]
    assert f"| as they are | {full['accuracy']:.6g} | 17.6 |" in page
    for name in ("confusion", "reliability", "face-size"):
        assert f"]({name}.png)" in page
    (folder / "confusion.png").rename(folder / "lost.png")
    assert faults(folder) == ["confusion.png, which CARD.md shows, is not there"]
    (folder / "lost.png").rename(folder / "confusion.png")


def test_the_card_says_what_it_learnt_from_and_what_it_cannot_do(made):
    page = (made[1] / "CARD.md").read_text()
    for words in (
        "1,234 images of FERPlus's training part",
        "An expression is not an emotion",
        "With licensed data",
        "matrices and kernels in float16",
        "faces of FERPlus's validation part, labels by 'majority'",
    ):
        assert words in page


def test_an_ablation_is_quoted_where_it_is_there(made, weights, monkeypatch, tmp_path):
    kept, folder = made
    monkeypatch.setattr(classifier, "ABLATIONS", tmp_path)
    said = {"says": ["Attention brings 1 point.", "Across the batch it is told the class."]}
    (tmp_path / "expression.json").write_text(json.dumps(said))
    write_card(TASK, kept, folder, figures_of(weights))
    assert "- Attention brings 1 point.\n- Across the batch" in (folder / "CARD.md").read_text()
    (tmp_path / "expression.json").write_text("{}")
    with pytest.raises(ValueError, match=r"expression\.json has no `says`"):
        write_card(TASK, kept, folder, figures_of(weights))


def test_attention_over_the_batch_is_refused_for_what_it_does():
    with pytest.warns(UserWarning, match="depend on the faces beside it"):
        network = PAttLite(8, size=80, attention="batch")
    with pytest.raises(ValueError, match="must not depend on its neighbours"):
        expression_graph(decided(network), CROPS, Fitted(1.0, {}))


def test_figures_of_another_graph_and_without_metrics_leave_no_manifest(made, weights, tmp_path):
    kept, folder = made
    (tmp_path / "model.onnx").write_bytes((folder / "model.onnx").read_bytes())
    with pytest.raises(ValueError, match="figures are of 0000"):
        write_card(TASK, kept, tmp_path, {**figures_of(weights), "sha256": "0000"}, FACTS)
    with pytest.raises(ValueError, match="figures lack metrics, min_inter_eye_px"):
        write_card(TASK, kept, tmp_path, {"sha256": "0000"}, FACTS)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_a_class_too_few_is_refused_before_anything_is_written(made, weights, tmp_path):
    kept, folder = made
    target = tmp_path / "artefact"
    target.mkdir()
    (target / "model.onnx").write_bytes((folder / "model.onnx").read_bytes())
    few = replace(TASK, read=lambda path: (*TASK.read(path)[:2], list(CLASSES[:7])))
    with pytest.raises(ValueError, match=r"would refuse it: .* 7 classes, 7 of them different"):
        write_card(few, kept, target, figures_of(weights), FACTS)
    assert [file.name for file in target.iterdir()] == ["model.onnx"]


def test_weights_of_other_classes_or_another_set_must_say_so_themselves(made, weights, tmp_path):
    seven = tmp_path / "seven.safetensors"
    keep_network(seven, PAttLite(7, size=80), [ROUND])
    with pytest.raises(ValueError, match=r"seven\.safetensors does not name its 7 classes"):
        read_weights(seven)
    other = tmp_path / "other.safetensors"
    keep_network(other, torch.nn.Linear(2, 2), [ROUND])
    with pytest.raises(ValueError, match=r"other\.safetensors holds no PAtt-Lite: .* trained it"):
        read_weights(other)
    with pytest.raises(ValueError, match=r"learnt from raf-db: say its facts \(--facts\)"):
        TASK.facts([{**ROUND, "data": "raf-db"}])


def test_a_weight_that_half_precision_cannot_hold_is_named(network):
    huge = PAttLite(8, size=80)
    with torch.no_grad():
        huge.classify.weight[0, 0] = 1e5
    with pytest.raises(ValueError, match=r"classify\.weight has a weight beyond"):
        halved(huge)
    assert all(p.dtype == torch.float32 for p in halved(network).parameters())


def test_weights_as_a_run_leaves_them_have_no_temperature_yet(weights, data, tmp_path):
    with pytest.raises(ValueError, match=r"network\.safetensors has no temperature"):
        write_graph(TASK, weights, tmp_path, data)
    assert list(tmp_path.iterdir()) == []
    keep(TASK, weights, tmp_path / "kept.safetensors", data)
    assert fitted_of(tmp_path / "kept.safetensors").temperature > 0
