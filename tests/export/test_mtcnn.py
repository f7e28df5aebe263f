"""The graphs compute what the plain networks do, whatever the weights; what ships is that."""

import json
from pathlib import Path

import numpy as np
import pytest

from export import mtcnn
from export.card import card
from service.inference.artefact import load_artefact
from service.inference.session import open_session

CHANNELS = {"pnet": (10, 16, 32), "rnet": (28, 48, 64), "onet": (32, 64, 64, 128)}
KERNELS = {"pnet": (3, 3, 3), "rnet": (3, 3, 2), "onet": (3, 3, 3, 2)}
DENSE = {"rnet": (576, 128), "onet": (1152, 256)}
HEAD_ROWS = {"scores": 2, "offsets": 4, "landmarks": 10}
MANIFEST = json.loads((mtcnn.FOLDER / "manifest.json").read_text())


def random_weights(name, seed=0):
    """Weights in the network's shapes, slopes on both sides of 0 and in the first layer above 1."""
    rng = np.random.default_rng(seed)
    weights = {}

    def layer(key, *shape):
        spread = np.sqrt(2 / np.prod(shape[1:]))
        weights[f"{key}.weight"] = rng.normal(0, spread, shape).astype(np.float32)
        weights[f"{key}.bias"] = rng.normal(0, 0.1, shape[0]).astype(np.float32)

    width = 3
    for index, (channels, side) in enumerate(zip(CHANNELS[name], KERNELS[name], strict=True), 1):
        layer(f"conv{index}", channels, width, side, side)
        most = 1.5 if index == 1 else 1
        weights[f"prelu{index}.weight"] = rng.uniform(-1.5, most, channels).astype(np.float32)
        width = channels
    last = len(CHANNELS[name]) + 1
    if name in DENSE:
        layer(f"dense{last}", *reversed(DENSE[name]))
        weights[f"prelu{last}.weight"] = rng.uniform(-1.5, 1, DENSE[name][1]).astype(np.float32)
        width = DENSE[name][1]
    for head, key in mtcnn.HEADS[name].items():
        layer(key, HEAD_ROWS[head], width, *((1, 1) if name == "pnet" else ()))
    return weights


def running(graph):
    return open_session(graph, threads=1, device="cpu").run


def random_pixels(count, height, width, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 255, (count, 3, height, width)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "height", "width"),
    [
        ("pnet", 12, 12),
        ("pnet", 13, 40),
        ("pnet", 31, 18),
        ("rnet", 24, 24),
        ("onet", 48, 48),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_graph_gives_what_the_plain_network_gives(name, height, width, seed):
    weights, pixels = random_weights(name, seed), random_pixels(3, height, width, seed)
    given = running(mtcnn.build_graph(name, weights).SerializeToString())(pixels)
    for output, (head, plain) in zip(
        given, mtcnn.plain_outputs(name, weights, pixels).items(), strict=True
    ):
        assert output.shape == plain.shape, head
        np.testing.assert_allclose(output, plain, atol=1e-4, err_msg=head)


@pytest.mark.parametrize("name", ["pnet", "rnet", "onet"])
def test_a_row_of_a_batch_is_what_it_is_alone(name):
    run = running((mtcnn.FOLDER / f"{name}.onnx").read_bytes())
    side = mtcnn.GOLDEN_SIDES[name]
    pixels = random_pixels(5, side, side)
    for row, alone in enumerate(pixels):
        for together, single in zip(run(pixels), run(alone[None]), strict=True):
            np.testing.assert_allclose(together[row], single[0], atol=1e-6)


def test_shipped_graphs_are_what_their_manifest_says():
    artefact = load_artefact(mtcnn.FOLDER)
    assert set(artefact.graphs) == {"pnet", "rnet", "onet"}


def test_another_wheel_is_refused(tmp_path):
    wheel = tmp_path / mtcnn.WHEEL
    wheel.write_bytes(b"PK another")
    with pytest.raises(ValueError, match="sha256"):
        mtcnn.export_mtcnn(wheel, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_shipped_card_is_the_manifests():
    assert (mtcnn.FOLDER / "CARD.md").read_text() == card(MANIFEST)


def test_card_shows_facts_tables_and_lists_but_no_golden_arrays():
    page = card(
        {
            "name": "net",
            "summary": "Says what.",
            "opset": 17,
            "classes": ["calm", "glad"],
            "limits": ["few people", "none old"],
            "temperature": [0.75, 1.25],
            "confusion": [[33, 0], [44, 55]],
            "metrics": {"lfw_accuracy": 0.95, "interval": [0.94, 0.96]},
            "graphs": {"a": {"file": "a.onnx", "golden": {"base64": "AAAA"}}},
            "golden": {"base64": "BBBB"},
            "calibration": {
                "people": 7,
                "curve": {"fmr": [0.25]},
                "thresholds": [{"target_fmr": 0.01, "similarity": 0.4}],
            },
        }
    )
    assert page.startswith("# net\n\nSays what.\n")
    assert "| opset | 17 |" in page
    assert "## classes\n\ncalm, glad\n" in page
    assert "## limits\n\n- few people\n- none old" in page
    assert "| lfw accuracy | 0.95 |" in page
    assert "| interval | 0.94, 0.96 |" in page
    assert "| a | a.onnx |" in page
    assert "| people | 7 |" in page
    assert "### thresholds\n\n| target fmr | similarity |\n| --- | --- |\n| 0.01 | 0.4 |" in page
    assert not any(number in page for number in ("0.25", "0.75", "33", "44"))
    assert "(calibration.png)" in page
    assert "AAAA" not in page
    assert "BBBB" not in page


def test_shipped_folder_holds_the_weights_licence():
    assert "Timothy Esler" in Path(mtcnn.FOLDER / "LICENSE").read_text()
