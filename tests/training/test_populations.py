"""Populations of strangers: whom they hold, how they are measured and tested."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from service.calibration.measure import measure_calibration, with_populations
from service.decision import Calibration, threshold_for_fmr
from tests.training.crops import png
from training.data.crops import Crops
from training.data.sets import is_kept_out
from training.evaluate import populations
from training.evaluate.embeddings import Network
from training.evaluate.populations import (
    CORNERS,
    find_strangers,
    measure_groups,
    measure_populations,
    side_by_side,
)


class Drawn(Network):
    """A network whose embeddings are a crop's mean colour and its noise."""

    def __init__(self, name: str) -> None:
        object.__setattr__(self, "name", name)

    def embeddings(self, pixels_NHWC: np.ndarray) -> np.ndarray:
        noise = pixels_NHWC[:, ::28, ::28].reshape(len(pixels_NHWC), -1)
        colours = pixels_NHWC.mean(axis=(1, 2)) * 8
        found = np.concatenate([noise, colours], axis=1).astype(np.float32) - 128
        return found / np.linalg.norm(found, axis=1, keepdims=True)


def crops(colours: np.ndarray, paths: list[str], seed: int = 0) -> Crops:
    """Noise around a colour for each path."""
    noise = np.random.default_rng(seed).normal(0, 30, (len(paths), 112, 112, 3))
    pixels = np.clip(colours[:, None, None] + noise, 0, 255).astype(np.uint8)
    return Crops(pixels, paths, np.full(len(paths), -1), [])


COLOURS = 60 + 130 * np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0], [1, 1, 0], [0, 1, 1]])


@pytest.fixture
def people() -> dict[str, Crops]:
    """UTKFace's crops, whose colour tells their ethnicity, and FairFace's of the same colours."""
    ethnicity = np.arange(300) % 5
    names = [f"utk/{5 + k % 60}_{k % 2}_{e}_2017{k}.webp" for k, e in enumerate(ethnicity)]
    faces = [f"ff/{n}.webp" for n in range(5, 3001, 5)]  # every second is kept out
    return {
        "unlabelled": crops(COLOURS[ethnicity], names),
        "strangers": crops(COLOURS[np.arange(600) % 5], faces, seed=1),
    }


def test_every_tenth_face_of_fairface_is_kept_out_and_no_other() -> None:
    assert is_kept_out("ff/10.webp")
    assert is_kept_out("ff/1230.webp")
    for path in ("ff/1.webp", "ff/105.webp", "utk/10_0_0_2017.webp", "10.webp", "ff/x0.webp"):
        assert not is_kept_out(path)


def test_a_group_holds_the_kept_out_faces_of_which_the_probe_is_sure(
    people: dict[str, Crops],
) -> None:
    even = [f"ff/{10 * n}.webp" for n in range(1, 601)]
    told = crops(COLOURS[np.arange(600) % 5], even, seed=1)
    found = find_strangers({**people, "strangers": told}, Drawn("teacher"), lambda _: None)
    assert found is not None
    assert found.probe is not None
    assert found.probe["accuracy"]["race"] > 0.95
    assert found.probe["accuracy"]["sex"] < 0.65  # which nothing in the pictures tells
    assert len(found.rows["fairface"]) == 600
    black = found.rows["fairface-predicted-black"]
    assert len(black) > 100
    assert (black % 5 == 1).mean() > 0.95  # by its colour
    assert found.facts["fairface-predicted-black"]["predicted"] is True
    assert found.facts["fairface"]["predicted"] is False
    sexes = {name for name in found.rows if "male" in name}
    assert not sexes  # never sure enough
    again = find_strangers({**people, "strangers": told}, Drawn("teacher"), lambda _: None)
    assert again is not None
    np.testing.assert_array_equal(again.rows["fairface-predicted-black"], black)


def test_without_a_teacher_the_kept_out_faces_are_one_population_and_it_is_said(
    people: dict[str, Crops],
) -> None:
    said: list[str] = []
    found = find_strangers(people, None, said.append)
    assert found is not None
    assert {name: len(rows) for name, rows in found.rows.items()} == {"fairface": 300}
    assert found.probe is None
    assert any("no groups are named" in line for line in said)
    assert find_strangers({"unlabelled": people["unlabelled"]}, None, said.append) is None


def calibrated(strangers: dict) -> Calibration:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(40), 4)
    rows = rng.normal(size=(40, 16))[labels] + rng.normal(size=(160, 16))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    block = measure_calibration(rows.astype(np.float32), labels, rounds=20)
    return Calibration.from_manifest(with_populations(block, strangers))


def test_the_populations_stand_side_by_side_with_their_thresholds_and_costs(
    people: dict[str, Crops],
) -> None:
    even = [f"ff/{10 * n}.webp" for n in range(1, 101)]
    told = crops(COLOURS[np.arange(100) % 5], even, seed=1)
    found = find_strangers({"strangers": told}, None, lambda _: None)
    assert found is not None
    calibration = calibrated(measure_populations(Drawn("ours"), found))
    table = side_by_side(calibration, 1e-2)
    assert list(table) == ["calibration", "fairface"]
    whole = table["fairface"]
    assert whole["faces"] == 100
    own = threshold_for_fmr(calibration.populations["fairface"], 1e-2)
    assert whole["threshold for 0.01"] == pytest.approx(own.similarity, abs=1e-3)
    assert whole["FNMR there"].startswith(f"{own.fnmr:.3g} (")


def test_a_test_set_is_measured_at_the_thresholds_of_people_and_of_the_worst_population(
    tmp_path: Path,
) -> None:
    even = [f"ff/{10 * n}.webp" for n in range(1, 101)]
    told = crops(COLOURS[np.zeros(100, int)], even, seed=1)  # all alike
    found = find_strangers({"strangers": told}, None, lambda _: None)
    assert found is not None
    calibration = calibrated(measure_populations(Drawn("ours"), found))
    pictures = crops(COLOURS[np.arange(80) // 40], [f"{n}.png" for n in range(80)], seed=2)
    corners = {"x1": 10, "y1": 10, "x2": 100, "y2": 10, "x3": 100, "y3": 100, "x4": 10, "y4": 100}
    lines = ["path,race,sex,age," + ",".join(CORNERS)]
    with zipfile.ZipFile(tmp_path / "crops.zip", "w") as archive:
        for n, pixels in enumerate(pictures.pixels_NHWC):
            archive.writestr(f"{n}.png", png(pixels))
            race, sex = ("black", "white")[n // 40], ("female", "male")[n % 2]
            values = ",".join(str(corners[name]) for name in CORNERS)
            lines.append(f"{n}.png,{race},{sex},3-9,{values}")
    (tmp_path / "groups.csv").write_text("\n".join(lines))
    figures = measure_groups(Drawn("ours"), tmp_path, calibration)
    cuts = figures["thresholds"]
    assert cuts["worst"]["population"] == "fairface"
    assert cuts["worst"]["similarity"] > cuts["calibration"]["similarity"]
    embeddings = Drawn("ours").embeddings(pictures.pixels_NHWC)[:40]
    similarity = (embeddings @ embeddings.T)[np.triu_indices(40, 1)]
    for population, cut in cuts.items():
        row = figures["fmr"][population]["mirrored"]["race"]["black"]
        assert row["fmr"] == pytest.approx((similarity >= cut["similarity"]).mean())
        assert set(figures["fmr"][population]["black"]) >= {"all", "race", "sex", "age"}
    row = {name: str(value) for name, value in corners.items()}
    black = populations._blackened(pictures.pixels_NHWC[0], row)
    assert black[:9].max() == black[102:].max() == 0
    np.testing.assert_array_equal(black[11:99, 11:99], pictures.pixels_NHWC[0][11:99, 11:99])
