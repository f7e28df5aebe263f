"""The measurement of what to put beyond a photograph's edge: its cuts, its rates, its page."""

import csv
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import photograph_edge
from benchmarks.photograph_edge import FILLS, SIDES, compare, cut, pooled, probes_of, whole_pairs
from service.vision.align import IDENTITY_CANVAS, align_crops
from service.vision.faces import Photograph
from tests.standin import recognition_graph
from training.evaluate.bootstrap import draws


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 256, shape, np.uint8)


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("side", SIDES)
def test_a_cut_takes_one_side_and_keeps_the_rest(fill: str, side: str) -> None:
    crops = noise(2, 112, 112, 3)
    [found, _] = cut(crops, side, 0.25, FILLS[fill])
    changed = (found != crops[0]).any(axis=2)
    beyond = np.zeros((112, 112), bool)
    strips = {
        "left": np.s_[:, :28],
        "right": np.s_[:, 84:],
        "above": np.s_[:28],
        "below": np.s_[84:],
    }
    beyond[strips[side]] = True
    assert not changed[~beyond].any()
    assert changed[beyond].mean() > 0.99
    edge = {"left": np.s_[:, 27], "right": np.s_[:, 84], "above": np.s_[27], "below": np.s_[84]}[
        side
    ]
    inner = {"left": np.s_[:, 28], "right": np.s_[:, 83], "above": np.s_[28], "below": np.s_[83]}[
        side
    ]
    if fill == "black":
        assert (found[beyond] == 0).all()
    else:
        np.testing.assert_array_equal(found[edge], found[inner])


def test_one_way_is_what_the_service_makes_of_a_cut_photograph() -> None:
    crops = cv2.GaussianBlur(noise(112, 112, 3), (5, 5), 0)[None]
    for side, taken in (("left", np.s_[:, 34:]), ("below", np.s_[:-34])):
        photograph = Photograph(np.ascontiguousarray(crops[0][taken]))
        landmarks = IDENTITY_CANVAS.template_52 - ((34, 0) if side == "left" else (0, 0))
        [served] = align_crops(photograph, [landmarks])
        made = [cut(crops, side, 34 / 112, border)[0] for border in FILLS.values()]
        assert min(np.abs(one.astype(int) - served).max() for one in made) <= 1


def test_probes_are_as_many_of_each_person_and_of_a_person_with_fewer_all() -> None:
    labels = np.repeat(np.arange(3), (5, 2, 4))
    probes = probes_of(labels)
    assert np.bincount(labels[probes]).tolist() == [3, 2, 3]
    assert len(set(probes.tolist())) == len(probes)


def test_rates_are_those_counted_pair_by_pair_with_each_person_as_often_as_drawn() -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(6), 5)
    whole = unit(rng.normal(size=(30, 8)) + 2 * rng.normal(size=(6, 8))[labels])
    probes = probes_of(labels)
    cuts = [unit(whole[probes] + 0.3 * rng.normal(size=(len(probes), 8))) for _ in range(2)]
    weights = draws(6, rounds=5)
    found = pooled([compare(one, whole, probes, labels, 0.7) for one in cuts])
    threshold = np.full(6, 0.8)
    for r, drawn in enumerate(weights):
        hits, total = np.zeros(3), np.zeros(3)  # mated, others, strangers
        for one in cuts:
            for i, probe in enumerate(probes):
                for j, person in enumerate(labels):
                    if j != probe:
                        same = labels[probe] == person
                        weight = drawn[person] * (1 if same else drawn[labels[probe]])
                        hits[0 if same else 1] += weight * (one[i] @ whole[j] > 0.8)
                        total[0 if same else 1] += weight
                for j in range(i):
                    if labels[probes[j]] != labels[probe]:
                        weight = drawn[labels[probes[j]]] * drawn[labels[probe]]
                        hits[2] += weight * (one[i] @ one[j] > 0.8)
                        total[2] += weight
        pairs = (found.mated, found.others, found.strangers)
        rates = [of.above(threshold, weights)[r] for of in pairs]
        np.testing.assert_allclose(rates, hits / total)


def test_the_threshold_is_the_lowest_that_lets_the_rate_of_the_weight_match(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(photograph_edge, "FMR", 0.01)
    rng = np.random.default_rng(2)
    labels = np.repeat(np.arange(12), 5)
    pairs = whole_pairs(unit(rng.normal(size=(60, 6))), labels)
    weights = draws(12, rounds=20)
    threshold = pairs.threshold(weights)
    assert (pairs.above(threshold, weights) <= 0.01).all()
    assert (pairs.above(np.nextafter(threshold, np.float32(-1)), weights) > 0.01).all()


def test_the_command_writes_a_page_of_each_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identities = tmp_path / "data" / "identities"
    identities.mkdir(parents=True)
    people = np.random.default_rng(3).integers(0, 200, (8, 7, 7, 3), np.uint8)
    with (
        zipfile.ZipFile(identities / "validation.zip", "w") as crops,
        (identities / "validation.csv").open("w", newline="") as file,
    ):
        rows = csv.writer(file)
        rows.writerow(["path", "person"])
        for person, take in np.ndindex(8, 4):
            crop = cv2.convertScaleAbs(cv2.resize(people[person], (112, 112)), beta=take)
            crops.writestr(f"{person}-{take}.png", cv2.imencode(".png", crop)[1].tobytes())
            rows.writerow([f"{person}-{take}.png", f"P{person}"])
    graphs = [tmp_path / "one.onnx", tmp_path / "two.onnx"]
    for graph in graphs:
        graph.write_bytes(recognition_graph())
    out = tmp_path / "page.md"
    words = [*graphs, "--data", tmp_path / "data", "--runs", tmp_path / "runs", "--threads", 1]
    monkeypatch.setattr(sys, "argv", ["photograph_edge", *map(str, words), "--out", str(out)])
    photograph_edge.main()
    page = out.read_text()
    for said in ("## one", "## two", "| any | mirrored |", "| below 30% |", "8 people", "cpu "):
        assert said in page
    assert "nan" not in page
