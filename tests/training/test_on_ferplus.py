"""Figures of expression graphs: every set that is there, nothing chosen on a test."""

import csv
import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from service.vision.align import EXPRESSION_CANVAS
from tests.shared import SHARED, needs_shared
from tests.training.crops import png
from tests.training.faces import drawn_expressions, write_ferplus
from tests.training.peers import bars, fields
from training.__main__ import main
from training.data.expressions import CLASSES
from training.evaluate import lfw
from training.evaluate.on_ferplus import evaluate

SILENT = {"say": lambda _: None}
TIMES, CORNER = 2.5, 30  # of the faces in the drawn photographs


def write_lfw(folder: Path, labels: list[int]) -> Path:
    """Photographs in LFW's form, one face each that is one of drawn_expressions; the colours are
    those of a photograph of night: all but red is faint."""
    folder.mkdir(parents=True)
    drawn = drawn_expressions(each=1)
    landmarks = EXPRESSION_CANVAS.scaled(int(48 * TIMES)).template_52 + CORNER
    with (
        zipfile.ZipFile(folder / "photos.zip", "w") as packed,
        (folder / "landmarks.csv").open("w", newline="") as marks,
        (folder / "expressions.csv").open("w", newline="") as said,
    ):
        rows, told = csv.writer(marks), csv.writer(said)
        rows.writerow(["path", "faces", *lfw.COORDINATES])
        told.writerow(["path", "expression"])
        for i, label in enumerate(labels):
            photograph = np.zeros((184, 184, 3), np.uint8)
            side, name = int(48 * TIMES), f"Ada/Ada_{i:04d}.jpg"
            face = cv2.resize(drawn.pixels[label], (side, side))
            inside = slice(CORNER, CORNER + side)
            photograph[inside, inside] = face[..., None] * np.array([1, 0.2, 0.2])
            packed.writestr(name, png(photograph))
            rows.writerow([name, 1, *landmarks.ravel()])
            told.writerow([name, CLASSES[label]])
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """ferplus/ whose test part has one face too many named contempt, and lfw/."""
    folder = tmp_path_factory.mktemp("data")
    parts = [drawn_expressions(2, part, seed) for seed, part in enumerate(("train", "validation"))]
    test = drawn_expressions(3, "test", 7)
    test.pixels[0] = drawn_expressions(1).pixels[7]
    write_ferplus(folder / "ferplus", *parts, test)
    write_lfw(folder / "lfw", [0, 0, 1, 1, 2])
    return folder


@pytest.fixture(scope="module")
def figures(data, tmp_path_factory):
    return evaluate([bars(tmp_path_factory.mktemp("g") / "bars.onnx")], data, **SILENT)[0]


def test_every_set_has_its_line_and_the_first_is_the_stated_rule(figures):
    names = ["FERPlus test, majority", "FERPlus test, argmax8", "LFW, colour", "LFW, grey"]
    assert list(figures["metrics"]) == names
    rows = figures["metrics"]
    assert [row["faces"] for row in rows.values()] == [24, 24, 5, 5]
    assert rows[names[0]]["accuracy"] == pytest.approx(23 / 24, abs=1e-4)
    assert rows["LFW, colour"]["accuracy"] == rows["LFW, grey"]["accuracy"] == 1
    assert figures["confusion"][0] == [2, 0, 0, 0, 0, 0, 0, 1]
    assert figures["expressions"]["neutral"]["recall"] == pytest.approx(2 / 3, abs=1e-4)
    assert figures["expressions_on_lfw"]["happiness"] == {
        "faces": 2,
        "recall_in_colour": 1.0,
        "recall_in_grey": 1.0,
    }


def test_faces_become_smaller_until_they_are_as_they_are(figures):
    curves = figures["face_size"]["curves"]
    sizes = {name: [row["inter_eye_px"] for row in rows] for name, rows in curves.items()}
    assert sizes["FERPlus validation"] == [6, 8, 10, 12, 14, 16, 17.6]
    assert sizes["LFW"][-2:] == [40, 44.1]
    assert [row["faces"] for row in curves["FERPlus validation"]] == [16] * 7
    assert figures["min_inter_eye_px"] in sizes["FERPlus validation"]


def test_the_smallest_face_is_not_chosen_on_a_test(data, figures, tmp_path):
    for name in ("ferplus", "lfw"):
        (tmp_path / name).symlink_to(data / name)
    (tmp_path / "lfw").unlink()
    write_lfw(tmp_path / "lfw", [2, 1, 0])
    path = tmp_path / "lfw" / "expressions.csv"
    path.write_text(path.read_text().replace(CLASSES[2], CLASSES[3]))
    [again] = evaluate([bars(tmp_path / "bars.onnx")], tmp_path, **SILENT)
    assert again["metrics"]["LFW, colour"]["accuracy"] < 1
    assert again["min_inter_eye_px"] == figures["min_inter_eye_px"]


def test_without_lfw_colour_is_left_out_and_said(data, tmp_path):
    (tmp_path / "ferplus").symlink_to(data / "ferplus")
    said = []
    [found] = evaluate([bars(tmp_path / "bars.onnx")], tmp_path, say=said.append)
    assert list(found["face_size"]["curves"]) == ["FERPlus validation"]
    assert not any("LFW" in name for name in found["metrics"])
    assert "expressions.csv is not there" in said[0]


def called(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["training", "evaluate", *map(str, arguments)])
    main()


def test_the_verb_sees_what_a_graph_does_and_sets_a_peer_beside_it(
    data, tmp_path, monkeypatch, capsys
):
    (tmp_path / "ours").mkdir()
    graphs = bars(tmp_path / "ours" / "model.onnx"), bars(tmp_path / "unsure.onnx", 0.001)
    out, pictures = tmp_path / "figures.json", tmp_path / "pictures"
    called(monkeypatch, *graphs, "--data", data, "--out", out, "--pictures", pictures)
    told = json.loads(out.read_text())
    assert told["metrics"] == told["graphs"][0]["metrics"]
    assert [graph["name"] for graph in told["graphs"]] == ["ours", "unsure"]
    errors = [
        graph["metrics"]["FERPlus test, majority"]["expected_calibration_error"]
        for graph in told["graphs"]
    ]
    assert errors[0] < 0.1 < 0.5 < errors[1]
    assert "face_size" not in told["graphs"][1]
    lines = capsys.readouterr().out.splitlines()
    [line] = [line for line in lines if "| FERPlus test, majority, accuracy |" in line]
    assert line.count("95.83 % [") == 2
    assert {path.name for path in pictures.iterdir()} == {
        *("confusion-ours.png", "reliability-ours.png", "face-size-ours.png"),
        *("confusion-unsure.png", "reliability-unsure.png"),
    }
    assert all(cv2.imread(str(path)).std() > 5 for path in pictures.iterdir())


def test_graphs_of_two_tasks_and_options_of_recognition_are_refused(data, tmp_path, monkeypatch):
    out = ["--data", data, "--out", tmp_path / "figures.json"]
    expression, attributes = bars(tmp_path / "a.onnx"), fields(tmp_path / "b.onnx")
    with pytest.raises(SystemExit, match=r"of one task .*a\.onnx expression, .*b\.onnx attr"):
        called(monkeypatch, expression, attributes, *out)
    with pytest.raises(SystemExit, match="--flip: of recognition alone, and this is expression"):
        called(monkeypatch, expression, "--flip", *out)
    assert not (tmp_path / "figures.json").exists()


def test_an_expression_that_there_is_not_is_named_with_its_line(data, tmp_path):
    folder = write_lfw(tmp_path / "lfw", [0, 1])
    path = folder / "expressions.csv"
    path.write_text(path.read_text().replace("happiness", "joy"))
    with pytest.raises(ValueError, match=r"expressions\.csv, line 3: 'joy' is none"):
        lfw.read_expressions(folder, CLASSES)


@needs_shared("data/lfw/expressions.csv")
def test_lfws_expressions_are_those_of_7410_of_its_photographs():
    names, labels = lfw.read_expressions(SHARED / "data" / "lfw", CLASSES)
    assert (len(names), len(set(names))) == (7410, 7410)
    assert np.bincount(labels, minlength=8)[:2].tolist() == [3691, 3294]
    assert set(names) <= set(lfw.read_landmarks(SHARED / "data" / "lfw"))
