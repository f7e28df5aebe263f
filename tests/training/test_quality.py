"""What quality is worth to a graph: the verb from end to end, and what spoilings do."""

import csv
import json
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from service.vision.align import IDENTITY_CANVAS, align_crops
from service.vision.faces import Photograph
from tests.cartoon import LANDMARKS_52, cartoon_photograph
from tests.standin import recognition_graph
from training import __main__ as training
from training.detector import open_detector
from training.evaluate import quality, spoilt
from training.evaluate.discard import Comparisons
from training.evaluate.lfw import COORDINATES

SIDE, PEOPLE, TAKES = 120, 5, 4


def photograph(person: int, take: int) -> np.ndarray:
    """A cartoon in a person's own light, grainy; the last take of each is blurred."""
    picture = cartoon_photograph([(20, 20, SIDE)], width=160, height=160).astype(float)
    picture *= np.random.default_rng(person).uniform(0.6, 1.2, 3)
    picture += np.random.default_rng((person, take)).normal(0, 4, picture.shape)
    picture = np.clip(picture, 0, 255).astype(np.uint8)
    return cv2.GaussianBlur(picture, (0, 0), 4) if take == TAKES - 1 else picture


def landmarks() -> np.ndarray:
    return LANDMARKS_52 * SIDE + 20


def lossless(picture: np.ndarray) -> bytes:
    return cv2.imencode(".png", picture[:, :, ::-1])[1].tobytes()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of data with lfw/ and identities/validation of PEOPLE cartoons."""
    folder = tmp_path / "data" / "lfw"
    folder.mkdir(parents=True)
    names = [f"P{p}/P{p}_{t + 1:04d}.jpg" for p in range(PEOPLE) for t in range(TAKES)]
    everyone = [photograph(p, t) for p in range(PEOPLE) for t in range(TAKES)]
    with zipfile.ZipFile(folder / "photos.zip", "w") as photos:
        for name, picture in zip(names, everyone, strict=True):
            photos.writestr(name, lossless(picture))
    with (folder / "landmarks.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "faces", *COORDINATES])
        rows.writerows([name, 1, *landmarks().ravel()] for name in names)
    lines = ["2\t10"]
    for _ in range(2):
        lines += [f"P{p}\t{a}\t{b}" for p in range(PEOPLE) for a, b in ((1, 2), (3, 4))]
        lines += [f"P{p}\t{t}\tP{(p + 1) % PEOPLE}\t{t}" for p in range(PEOPLE) for t in (1, 2)]
    (folder / "pairs.txt").write_text("\n".join(lines) + "\n")

    identities = tmp_path / "data" / "identities"
    identities.mkdir()
    with zipfile.ZipFile(identities / "validation.zip", "w") as crops:
        for i, picture in enumerate(everyone):
            crops.writestr(f"{i}.png", lossless(align_crops(Photograph(picture), [landmarks()])[0]))
    with (identities / "validation.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "person"])
        rows.writerows([f"{i}.png", f"P{i // TAKES}"] for i in range(len(everyone)))
    return tmp_path / "data"


def test_the_verb_measures_draws_and_prints(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = {("head_pose_roll",): [spoilt.rolled(20)], ("sharpness",): [spoilt.blurred(3)]}
    monkeypatch.setattr(spoilt, "SPOILINGS", few)
    (tmp_path / "graph.onnx").write_bytes(recognition_graph())
    out, picture = tmp_path / "told" / "quality.json", tmp_path / "told" / "quality.png"
    words = ["quality", tmp_path / "graph.onnx", "--data", data, "--runs", tmp_path / "runs"]
    words += ["--out", out, "--picture", picture, "--validation", "--threads", 1]
    monkeypatch.setattr(sys, "argv", ["training", *map(str, words)])
    training.main()
    told = json.loads(out.read_text())
    assert (told["LFW"]["comparisons"], told["LFW"]["people"]) == (20, PEOPLE)
    assert told["LFW"]["photographs"] == PEOPLE * TAKES
    assert told["validation"]["comparisons"] == PEOPLE * TAKES * (TAKES - 1) / 2
    assert set(told["LFW"]["curves"]) > set(told["validation"]["curves"])
    blurred, rolled = (
        next(row for row in told["spoilt"]["rows"] if row["kind"].startswith(kind))
        for kind in ("blurred", "rolled")
    )
    assert (blurred["strength"], blurred["found"]) == (3, 1)
    assert rolled["values"]["head_pose_roll"][1] == pytest.approx(20, abs=4)
    assert cv2.imread(str(picture)).std() > 5
    printed = capsys.readouterr().out
    for said in ("LFW: 20 mated pairs", "| `sharpness` |", "| strict |", "rolled, degrees 20"):
        assert said in printed


def test_the_share_left_is_of_those_who_look_straight() -> None:
    degrees = np.concatenate([np.full(200, 5.0), np.full(200, -32.0)])
    missed = np.concatenate([np.zeros(200, bool), np.arange(200) % 4 == 0])
    rows = np.arange(400)
    [turned] = quality.left_by_turn(degrees, Comparisons(rows, rows, rows % 20, missed))
    assert (turned["degrees"], turned["comparisons"]) == (32, 200)
    assert turned["left"] == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("spoiling", "component", "value"),
    [
        (spoilt.smaller(20), "inter_eye_distance", 20),
        (spoilt.rolled(-30), "head_pose_roll", -30),
        (spoilt.cut_left(0.9), "leftward_crop_of_the_face_image", 0.9),
        (spoilt.cut_right(0.9), "rightward_crop_of_the_face_image", 0.9),
        (spoilt.cut_above(0.8), "margin_above_of_the_face_image", 0.8),
        (spoilt.cut_below(1.1), "margin_below_of_the_face_image", 1.1),
    ],
)
def test_a_spoiling_makes_the_value_that_it_is_after(
    spoiling: spoilt.Spoiling, component: str, value: float
) -> None:
    picture = photograph(0, 0)
    crop = align_crops(Photograph(picture), [landmarks()], IDENTITY_CANVAS)[0]
    found = spoilt.find(spoiling.spoil(spoilt.in_photograph(crop)), open_detector())
    assert found is not None
    assert getattr(found[2], component) == pytest.approx(value, rel=0.15)


@pytest.mark.parametrize("spoiling", [spoilt.blurred(2), spoilt.shaken(9), spoilt.faded(0.3)])
def test_a_blur_a_shake_and_a_fading_take_the_detail(spoiling: spoilt.Spoiling) -> None:
    picture = photograph(0, 0)
    assert cv2.Laplacian(spoiling.spoil(picture), cv2.CV_32F).var() < 0.5 * (
        cv2.Laplacian(picture, cv2.CV_32F).var()
    )


def test_exposure_turns_the_light_by_its_gain_up_to_white() -> None:
    picture = photograph(0, 0)
    dark = spoilt.exposed(0.5).spoil(picture)
    assert np.abs(dark.astype(float) - picture * 0.5).max() <= 0.5
    assert (spoilt.exposed(3).spoil(picture)[picture > 85] == 255).all()
