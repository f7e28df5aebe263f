"""Detection: the findings of the golden set, and an answer for every photograph."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.agreement import Agreement, faces_from_corners, overlap
from service.imagefile import read_photograph
from service.inference.artefact import load_artefact
from service.vision import detect
from service.vision.detect import Cascade, detect_faces
from service.vision.faces import Photograph
from tests.cartoon import LANDMARKS_52, cartoon_face, cartoon_photograph
from tests.shared import SHARED, needs_shared

MTCNN = Path(detect.__file__).parents[1] / "models" / "mtcnn"
PARTY = [(30, 50, 200), (300, 60, 120), (500, 300, 60)]


@pytest.fixture(scope="module")
def cascade():
    graphs = load_artefact(MTCNN, threads=1).graphs
    return Cascade(*(graphs[name].run for name in ("pnet", "rnet", "onet")))


def finding(face):
    box = face.box
    return (box.x, box.y, box.width, box.height, face.confidence, *face.landmarks_52.ravel())


def assert_same(found, expected, **tolerance):
    assert len(found) == len(expected)
    for face, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(finding(face), finding(other), **tolerance)


@needs_shared("golden/mtcnn.json")
def test_golden_faces_are_found_and_no_others(cascade):
    agreement = Agreement()
    for entry in json.loads((SHARED / "golden" / "mtcnn.json").read_text())["images"]:
        data = (SHARED / "golden" / "photos" / entry["file"]).read_bytes()
        photograph = read_photograph(data, max_bytes=len(data), max_pixels=10_000_000)
        expected = faces_from_corners(entry["boxes"], entry["probs"], entry["landmarks"])
        agreement.add(entry["file"], detect_faces(photograph, cascade), expected)
    # docs/detection.md explains the two that differ, by machine, from 673.
    assert agreement.expected == 673
    assert len(agreement.missed) <= 3
    assert len(agreement.extra) <= 3
    assert np.mean(agreement.overlaps) > 0.9999
    assert max(agreement.landmarks_px) < 1.5
    assert max(agreement.confidences) < 0.05


def test_drawn_faces_are_found_largest_first_where_they_were_drawn(cascade):
    found = detect_faces(Photograph(cartoon_photograph(PARTY)), cascade)
    assert len(found) == 3
    for face, (x, y, side) in zip(found, PARTY, strict=True):
        drawn = LANDMARKS_52 * side + (x, y)
        assert np.abs(face.landmarks_52 - drawn).max() < 0.05 * side
        assert x < face.box.x < face.box.x + face.box.width < x + side
        assert y < face.box.y < face.box.y + face.box.height < y + side
        assert 0.7 < face.confidence <= 1


def test_smaller_faces_than_asked_for_are_not_looked_for(cascade):
    photograph = Photograph(cartoon_photograph(PARTY))
    for min_face_px, count in ((60, 3), (80, 2), (150, 1), (300, 0)):
        assert len(detect_faces(photograph, cascade, min_face_px=min_face_px)) == count


def test_a_side_that_pnet_cannot_see_is_refused(cascade):
    with pytest.raises(ValueError, match="at least 12"):
        detect_faces(Photograph(cartoon_face(60)), cascade, min_face_px=11)


def test_a_face_cut_by_the_edge_reaches_beyond_the_photograph(cascade):
    cut = np.ascontiguousarray(cartoon_face(200)[:, 62:])
    [face] = detect_faces(Photograph(cut), cascade)
    assert face.box.x < 5
    assert face.box.x + face.box.width < 138


@pytest.mark.parametrize(
    ("height", "width"),
    [(1, 1), (1, 5000), (5000, 1), (11, 11), (12, 12), (19, 640), (20, 20), (21, 3000), (3000, 33)],
)
@pytest.mark.parametrize("colour", ["black", "noise"])
def test_photographs_of_every_shape_have_an_answer(cascade, height, width, colour):
    pixels = np.zeros((height, width, 3), np.uint8)
    if colour == "noise":
        pixels = np.random.default_rng(0).integers(0, 256, pixels.shape, np.uint8)
    assert isinstance(detect_faces(Photograph(pixels), cascade), list)


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 90), width=st.integers(1, 90), seed=st.integers(0, 99))
def test_photographs_of_any_size_have_an_answer(cascade, height, width, seed):
    face = cartoon_face(90)
    rng = np.random.default_rng(seed)
    y, x = rng.integers(0, 91 - height), rng.integers(0, 91 - width)
    part = np.ascontiguousarray(face[y : y + height, x : x + width])
    for found in detect_faces(Photograph(part), cascade, min_face_px=12):
        assert np.isfinite(finding(found)).all()


def wild(pixels, *shapes):
    """Outputs of a network that sees a face everywhere, far off and of every size."""
    rng = np.random.default_rng(0)
    outputs = [rng.uniform(-40, 40, (len(pixels), *shape)).astype(np.float32) for shape in shapes]
    outputs[0] = rng.uniform(0.5, 1, outputs[0].shape).astype(np.float32)
    return outputs


def test_networks_that_point_anywhere_cause_no_error():
    def pnet(pixels):
        cells = [(side - 1) // 2 - 4 for side in pixels.shape[2:]]
        return wild(pixels, cells, (4, *cells))

    cascade = Cascade(
        pnet,
        lambda pixels: wild(pixels, (), (4,)),
        lambda pixels: wild(pixels, (), (4,), (10,)),
    )
    detect_faces(Photograph(np.zeros((70, 90, 3), np.uint8)), cascade)


def test_tiles_change_nothing(cascade, monkeypatch):
    photograph = Photograph(cartoon_photograph(PARTY))
    whole = detect_faces(photograph, cascade)
    monkeypatch.setattr(detect, "TILE_CELLS", (7, 30))
    monkeypatch.setattr(detect, "RUN_CELLS", 11)
    monkeypatch.setattr(detect, "CROPS_PX", 2304)
    assert_same(detect_faces(photograph, cascade), whole, rtol=1e-5)


def test_runs_side_by_side_change_nothing(cascade):
    photograph = Photograph(cartoon_photograph(PARTY))
    with ThreadPoolExecutor(4) as pool:
        parallel = Cascade(cascade.pnet, cascade.rnet, cascade.onet, map=pool.map)
        found = detect_faces(photograph, parallel)
    assert_same(found, detect_faces(photograph, cascade), rtol=0)


def test_runs_stay_small_however_large_the_photograph(cascade):
    largest = {"pnet": 0, "rnet": 0, "onet": 0}

    def watched(name):
        def run(pixels):
            largest[name] = max(largest[name], pixels.size)
            return getattr(cascade, name)(pixels)

        return run

    watching = Cascade(*(watched(name) for name in largest))
    detect_faces(Photograph(np.tile(cartoon_face(120), (12, 30, 1))), watching, min_face_px=40)
    assert 0 < largest["pnet"] <= 3 * 120 * 200
    assert 0 < largest["rnet"] == 3 * 24 * 24 * 16
    assert 0 < largest["onet"] == 3 * 48 * 48 * 4


def plainly_kept(boxes, order, share, limit):
    kept = []
    for index in order:
        if all(share(boxes[index], boxes[other]) <= limit for other in kept):
            kept.append(index)
    return kept


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 200), st.integers(0, 1000))
def test_suppression_keeps_what_comparing_one_by_one_keeps(count, seed):
    rng = np.random.default_rng(seed)
    corner, side = rng.integers(0, 60, (count, 2)), rng.integers(1, 40, (count, 2))
    boxes = np.concatenate([corner, corner + side], axis=1).astype(np.float32)
    scores = rng.integers(0, 50, count).astype(np.float32)

    def union(a, b):
        return overlap(*(box(corners, 0) for corners in (a, b)))

    def smaller(a, b):
        a, b = box(a, 1), box(b, 1)
        union = overlap(a, b)
        shared = union * (a.area + b.area) / (1 + union)
        return shared / min(a.area, b.area)

    limit = np.float32(0.5003)  # no quotient of these small integers
    kept = detect._distinct(boxes, scores, limit)
    assert kept.tolist() == plainly_kept(boxes, np.argsort(-scores, kind="stable"), union, limit)
    kept = detect._distinct_within(boxes, scores, limit)
    order = np.argsort(scores, kind="stable")[::-1]
    assert kept.tolist() == plainly_kept(boxes, order, smaller, limit)


def box(corners, plus):
    x1, y1, x2, y2 = corners.astype(float).tolist()
    return detect.Box(x1, y1, x2 - x1 + plus, y2 - y1 + plus)
