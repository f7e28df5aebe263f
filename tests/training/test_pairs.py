"""Pairs in folds, and the sets that they come in."""

import shutil
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tests.training.crops import drawn_crops, png
from training.data.recordio import RecordWriter
from training.data.verification_bin import write_bin
from training.evaluate.pairs import (
    Pairs,
    contiguous_folds,
    equal_error_rate,
    failing_pairs,
    pair_figures,
    read_pairs,
    similarities,
    ten_fold,
)
from training.evaluate.pairsets import read_pair_set

CROPS = drawn_crops(people=3, each=2)
LISTED = "2\t1\nAda\t1\t2\nAda\t1\tBo\t2\nBo\t1\t2\nBo\t1\tCy\t1\n"
NAMES = ("Ada", "Bo", "Cy")


def made(similarity: np.ndarray, same: np.ndarray, folds: int) -> Pairs:
    photographs = [("Ada", i + 1) for i in range(2 * len(same))]
    first = 2 * np.arange(len(same))
    return Pairs(photographs, first, first + 1, same, contiguous_folds(len(same), folds))


def drawn(count: int = 120) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    same = rng.uniform(size=count) < 0.5
    return rng.normal(same * 0.4, 0.3), same


def test_each_fold_is_judged_at_the_best_threshold_of_the_others():
    similarity, same = drawn()
    right = ten_fold(similarity, made(similarity, same, 4))
    for fold in range(4):
        mine = np.arange(120) // 30 == fold
        rest = np.sort(similarity[~mine])
        cuts = [-2, *((a + b) / 2 for a, b in pairwise(rest)), 2]
        correct = [((similarity[~mine] > cut) == same[~mine]).sum() for cut in cuts]
        cut = cuts[int(np.argmax(correct))]
        assert right[mine].tolist() == ((similarity[mine] > cut) == same[mine]).tolist()


def test_figures_are_those_of_counting_pairs():
    similarity, same = drawn(400)
    pairs = made(similarity, same, 4)
    found = pair_figures(similarity, pairs)
    by_fold = ten_fold(similarity, pairs).reshape(4, 100).mean(1)
    assert found["accuracy"] == pytest.approx(by_fold.mean())
    assert found["standard_error"] == pytest.approx(by_fold.std(ddof=1) / 2)
    non_mated = sorted(similarity[~same], reverse=True)
    for name, far in (("1e1", 1e-1), ("1e2", 1e-2)):
        cut = non_mated[int(far * len(non_mated))]
        assert found[f"tar_at_far_{name}"] == (similarity[same] > cut).mean()
    assert found["smallest_far"] == 30 / (~same).sum()
    gaps = [
        abs((similarity[same] < s).mean() - (similarity[~same] >= s).mean()) for s in similarity
    ]
    best = similarity[int(np.argmin(gaps))]
    meeting = ((similarity[same] < best).mean() + (similarity[~same] >= best).mean()) / 2
    assert found["equal_error_rate"] == pytest.approx(meeting, abs=1e-9)


def test_pairs_that_cannot_be_confused_have_no_errors_and_those_by_chance_have_half():
    same = np.arange(4000) % 2 == 0
    certain = np.where(same, 0.9, 0.1)
    found = pair_figures(certain, made(certain, same, 10))
    assert (found["accuracy"], found["equal_error_rate"], found["tar_at_far_1e3"]) == (1, 0, 1)
    # 2,000 of 2,000 leave room for some: no interval has width zero.
    assert found["tar_at_far_1e3_low"] == pytest.approx(1 - 1.96**2 / (2000 + 1.96**2), abs=1e-5)
    assert found["tar_at_far_1e3_high"] == 1
    # 1e-4 of 2,000 non-mated pairs is less than one: there is nothing to find it by.
    assert np.isnan([found[f"tar_at_far_1e4{end}"] for end in ("", "_low", "_high")]).all()
    assert found["unsupported"] == (
        "TAR at FAR 0.0001: 2000 non-mated pairs cannot show it; 0.0001 takes 10,000"
    )
    assert failing_pairs(certain, made(certain, same, 10)) == []
    chance = np.random.default_rng(0).normal(size=4000)
    found = pair_figures(chance, made(chance, same, 10))
    assert found["accuracy"] == pytest.approx(0.5, abs=0.03)
    assert found["tar_at_far_1e2"] == pytest.approx(1e-2, abs=6e-3)
    assert equal_error_rate(chance[same], chance[~same]) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(("same", "folds"), [([True] * 4, 2), ([False] * 4, 2), ([True, False], 1)])
def test_pairs_that_no_protocol_can_judge_are_refused(same, folds):
    similarity = np.linspace(0, 1, len(same))
    counts = f"here are {sum(same)} mated and {len(same) - sum(same)} non-mated pairs"
    with pytest.raises(ValueError, match=f"two folds or more; {counts}, folds: {folds}"):
        pair_figures(similarity, made(similarity, np.array(same), folds))


def test_the_pairs_that_fail_are_named_the_worst_first():
    similarity = np.array([0.9, 0.1, 0.8, 0.2, -0.5, 0.1, 0.9, 0.2])
    same = np.array([True, False] * 4)
    assert failing_pairs(similarity, made(similarity, same, 2)) == [
        "mated -0.500: Ada_0009, Ada_0010"
    ]


def test_a_file_of_pairs_says_its_folds(tmp_path):
    (tmp_path / "pairs.txt").write_text(LISTED)
    pairs = read_pairs(tmp_path / "pairs.txt")
    assert pairs.names == [f"{n}/{n}_000{i}.jpg" for n, i in pairs.photographs]
    assert pairs.photographs == [("Ada", 1), ("Ada", 2), ("Bo", 1), ("Bo", 2), ("Cy", 1)]
    assert (pairs.same_P.tolist(), pairs.fold_P.tolist()) == ([True, False] * 2, [0, 0, 1, 1])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "line 1"),
        ("Ada 1 2\n", "line 1"),
        ("2\t1\nAda 1 two\n", "line 2"),
        ("1\t1\nAda 1 2\n", "1 folds of 2 pairs are announced, 1 found"),
    ],
)
def test_a_file_of_pairs_of_another_form_is_refused(tmp_path, text, words):
    (tmp_path / "pairs.txt").write_text(text)
    with pytest.raises(ValueError, match=words):
        read_pairs(tmp_path / "pairs.txt")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """pairs.txt, and the same crops as a folder, a zip, a .rec and a .bin of the same pairs."""
    (tmp_path / "pairs.txt").write_text(LISTED)
    (tmp_path / "by-label.txt").write_text(
        LISTED.replace("Ada", "0").replace("Bo", "1").replace("Cy", "2")
    )
    for i, (label, pixels) in enumerate(zip(CROPS.labels_N, CROPS.pixels_NHWC, strict=True)):
        name = f"{NAMES[label]}/{NAMES[label]}_{i % 2 + 1:04d}.png"
        path = tmp_path / "crops" / "deeper" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(pixels))
    shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "crops")
    with RecordWriter(tmp_path / "set.rec") as out:
        for label, pixels in zip(CROPS.labels_N, CROPS.pixels_NHWC, strict=True):
            out.add(label, png(pixels))
    in_pairs = [png(CROPS.pixels_NHWC[i]) for i in (0, 1, 0, 3, 2, 3, 2, 4)]
    write_bin(tmp_path / "set.bin", in_pairs, [True, False] * 2)
    return tmp_path


@pytest.mark.parametrize(
    "places", ["crops,pairs.txt", "packed.zip,pairs.txt", "set.rec,by-label.txt", "set.bin"]
)
def test_a_set_is_the_same_whatever_it_lies_in(folder, places):
    crops, _, listed = places.partition(",")
    asked = f"{folder / crops},{folder / listed}" if listed else str(folder / crops)
    found = read_pair_set(f"mine={asked}")
    flat = np.asarray(found.pixels_NHWC[:]).reshape(-1, 112 * 112 * 3)
    unit = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    wanted = CROPS.pixels_NHWC.reshape(6, -1) * 1.0
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    expected = [wanted[a] @ wanted[b] for a, b in ((0, 1), (0, 3), (2, 3), (2, 4))]
    np.testing.assert_allclose(similarities(unit, found.pairs), expected)
    assert (found.name, found.pairs.same_P.tolist()) == ("mine", [True, False] * 2)


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        ("{0}/set.bin", ValueError, "NAME=CROPS"),
        ("x={0}/nowhere.bin", FileNotFoundError, "nowhere.bin"),
        ("x={0}/crops", ValueError, "holds no pairs"),
        ("x={0}/crops,{0}/nowhere.txt", FileNotFoundError, "nowhere.txt"),
        ("x={0}/set.bin,{0}/pairs.txt", ValueError, "one file too many"),
        ("x={0}/pairs.txt,{0}/pairs.txt", ValueError, "neither"),
        ("x={0}/set.rec,{0}/pairs.txt", ValueError, "person Ada has 0 crops"),
    ],
)
def test_what_is_no_set_of_pairs_is_refused(folder, asked, error, words):
    with pytest.raises(error, match=words):
        read_pair_set(asked.format(folder))


def test_a_photograph_that_is_missing_or_not_aligned_is_named(folder):
    (folder / "crops" / "deeper" / "Ada" / "Ada_0002.png").unlink()
    with pytest.raises(ValueError, match="lacks Ada/Ada_0002"):
        read_pair_set(f"x={folder}/crops,{folder}/pairs.txt")
    with zipfile.ZipFile(folder / "large.zip", "w") as packed:
        for who in NAMES:
            for i in (1, 2):
                packed.writestr(f"{who}/{who}_{i:04d}.png", png(np.zeros((96, 96, 3), np.uint8)))
    with pytest.raises(ValueError, match=r"large\.zip: crops are \(96, 96, 3\)"):
        read_pair_set(f"x={folder}/large.zip,{folder}/pairs.txt")
