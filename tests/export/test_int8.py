"""The int8 variant answers nearly as its original, and its report says how nearly."""

import hashlib
import json
from collections import OrderedDict

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from export.check import faults
from export.graph import Pixels, UnitLength, proven_graph, runner
from export.int8 import calibration_crops, int8_block, main, make, page, quantised, times_ms
from service.inference.artefact import load_artefact
from tests.export.networks import CROPS, as_trained
from tests.standin import scores_graph, write_classifier, write_recognition
from tests.training.crops import drawn_crops, write_set
from training.data.crops import Crops

TRAINING = drawn_crops(people=8, each=8)
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def graph():
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(3, 16, 3, 4), nn.BatchNorm2d(16), nn.PReLU(16))
    block = nn.Sequential(nn.Conv2d(16, 32, 3, 4), nn.BatchNorm2d(32), nn.PReLU(32))
    head = nn.Sequential(nn.Flatten(), nn.Linear(32 * 49, 512))
    network = nn.Sequential(OrderedDict(stem=stem, block=block, head=head))
    return proven_graph(as_trained(network, CROPS), Pixels(), UnitLength(), CROPS)


@pytest.fixture(scope="module")
def int8(graph):
    return quantised(graph, TRAINING.pixels_NHWC)


@pytest.fixture
def data(tmp_path):
    """A folder with identities/: eight people to train on, four others to measure on."""
    folder = tmp_path / "data" / "identities"
    folder.mkdir(parents=True)
    write_set(TRAINING, folder, "train")
    others = drawn_crops(people=4, each=14)  # 1,176 non-mated pairs: a FAR of 1e-3 needs 1,000
    people = [f"other {i}" for i in range(4)]
    write_set(
        Crops(others.pixels_NHWC, others.paths, others.labels_N, people), folder, "validation"
    )
    return folder.parent


def test_int8_answers_nearly_as_float32_and_is_smaller(graph, int8):
    cosines = (runner(graph)(CROPS) * runner(int8)(CROPS)).sum(1)
    assert 0.99 < cosines.min() < 0.999999
    assert len(int8) < len(graph) / 2


def test_the_stem_stays_float32_and_the_rest_does_not(int8):
    model = onnx.load_from_string(int8)
    floats = {i.name for i in model.graph.initializer if i.data_type == onnx.TensorProto.FLOAT}
    weights = {name for node in model.graph.node if node.op_type == "Conv" for name in node.input}
    assert sum(name in weights and "stem" in name for name in floats) >= 1
    assert not any(name in weights and "block" in name and "bias" not in name for name in floats)


def test_the_artefact_and_its_report_say_what_was_lost_and_won(graph, data, tmp_path):
    source, out = write_recognition(tmp_path / "float32", graph), tmp_path / "int8"
    crops = calibration_crops(data / "identities" / "train.csv", data, tmp_path / "cache")
    report = make(source, out, crops, data, tmp_path / "cache")
    artefact = load_artefact(out)
    sha256 = hashlib.sha256((out / "model.onnx").read_bytes()).hexdigest()
    assert (artefact.name, artefact.space) == ("stand-in-int8", f"stand-in-int8/{sha256[:16]}")
    assert "space_of" not in artefact.manifest
    assert artefact.manifest["int8"]["of"] == load_artefact(source).manifest["sha256"]
    float32, int8 = report["graphs"]["float32"], report["graphs"]["int8"]
    for name in ("validation TAR@FAR=1e-3", "validation EER"):
        assert artefact.manifest["int8"]["differences"][name] == int8[name] - float32[name]
    assert int8["bytes"] == (out / "model.onnx").stat().st_size < float32["bytes"]
    assert set(int8["ms"]) == {"batch 1", "batch 16"}
    assert "calibration" not in artefact.manifest  # nobody's was there to be measured anew
    assert faults(out) == []


def test_the_page_shows_both_and_what_they_were_measured_on():
    graph = {"validation EER": 0.05, "bytes": 4_000_000, "ms": {"batch 1": 6.0}}
    other = {"validation EER": 0.0525, "bytes": 1_000_000, "ms": {"batch 1": 4.0}}
    report = {"graphs": {"float32": graph, "int8": other}, "hardware": {"cpu": "a", "int8": "b"}}
    text = page(report, "python -m export.int8 ...")
    assert "`python -m export.int8 ...`" in text
    assert "| validation EER | 5.00 % | 5.25 % | +0.25 |" in text
    assert "| size | 4.00 MB | 1.00 MB | x 0.25 |" in text
    assert "| CPU a crop, batch 1 | 6.00 ms | 4.00 ms | 1.50 times as fast |" in text
    assert "cpu a; int8 b" in text
    assert int8_block(report, "0" * 64)["times as fast"] == {"batch 1": 1.5}


def test_the_command_writes_the_report_and_the_figures_beside_it(
    graph, data, tmp_path, monkeypatch, capsys
):
    source, out = write_recognition(tmp_path / "float32", graph), tmp_path / "int8"
    words = ["int8", source, "--crops", data / "identities" / "train.csv", "--out", out]
    words += ["--data", data, "--cache", tmp_path / "cache", "--report", tmp_path / "r" / "int8.md"]
    monkeypatch.setattr("sys.argv", [str(word) for word in words])
    main()
    text = (tmp_path / "r" / "int8.md").read_text()
    assert text in capsys.readouterr().out
    kept = json.loads((tmp_path / "r" / "int8.json").read_text())
    assert kept["command"] in text
    assert kept["graphs"]["int8"]["bytes"] == (out / "model.onnx").stat().st_size


def test_ranges_are_never_taken_from_people_who_are_measured_on(data, tmp_path):
    with pytest.raises(ValueError, match=r"other 0 is among .*validation\.csv's people"):
        calibration_crops(data / "identities" / "validation.csv", data, tmp_path)


def test_too_few_crops_are_refused(graph, tmp_path):
    few = write_set(drawn_crops(people=2, each=2), tmp_path)
    with pytest.raises(ValueError, match="has 4 crops; 64 are needed"):
        calibration_crops(few, tmp_path, tmp_path / "cache")
    with pytest.raises(ValueError, match="6 crops: a multiple of 8 is needed"):
        quantised(graph, CROPS)


def test_an_artefact_of_another_task_is_refused_before_anything_is_written(tmp_path):
    graph = scores_graph(height=48, width=48, classes=8)
    folder = write_classifier(tmp_path / "a", "expression", graph, (48, 48))
    with pytest.raises(ValueError, match="is for expression"):
        make(folder, tmp_path / "out", CROPS, tmp_path, tmp_path)
    assert not (tmp_path / "out").exists()


def test_times_are_of_each_graph_and_batch(graph, int8):
    times = times_ms([graph, int8], np.repeat(CROPS[:4], 4, axis=0), rounds=2)
    assert [set(ms) for ms in times] == [{"batch 1", "batch 16"}] * 2
    assert all(ms > 0 for found in times for ms in found.values())
