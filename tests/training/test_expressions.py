"""Faces with an expression: each set from its own files, labels by the stated rules."""

import csv
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from service.vision.align import IDENTITY_CANVAS
from tests.shared import SHARED, needs_shared
from training.data.expressions import CLASSES, read_ck_plus, read_raf_db
from training.data.fer import SPLITS, labels_of, read_fer2013, read_ferplus, read_votes

FERPLUS = SHARED / "data" / "ferplus"


def grey(seed: int, side: int = 48) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side), np.uint8)


def encoded(pixels: np.ndarray) -> bytes:
    """A PNG. pixels: grey or RGB."""
    return cv2.imencode(".png", pixels if pixels.ndim == 2 else pixels[:, :, ::-1])[1].tobytes()


def put(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


# FER2013 and FERPlus

# Rows 1 and 3 have the same picture, as have 2 and 4.
USAGES = ("Training", "Training", "Training", "PublicTest", "PrivateTest", "PrivateTest")
PICTURES = [grey(seed) for seed in (0, 1, 2, 1, 2, 5)]
EMOTIONS = (0, 1, 2, 3, 4, 6)
# neutral, happiness, surprise, sadness, anger, disgust, fear, contempt, unknown, NF
VOTES = (
    (4, 0, 0, 1, 3, 2, 0, 0, 0, 0),
    (0, 0, 0, 0, 6, 0, 1, 1, 2, 0),
    (0, 0, 1, 0, 0, 0, 0, 0, 9, 0),
    (2, 2, 2, 1, 0, 0, 0, 0, 1, 2),
    (0, 10, 0, 0, 0, 0, 0, 0, 0, 0),
    (0, 0, 0, 0, 0, 0, 0, 0, 0, 10),
)


def write_fer2013(path: Path) -> Path:
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["emotion", "pixels", "Usage"])
        for emotion, picture, usage in zip(EMOTIONS, PICTURES, USAGES, strict=True):
            rows.writerow([emotion, " ".join(map(str, picture.ravel())), usage])
    return path


def write_votes(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "fer2013new.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["Usage", "Image name", *CLASSES, "unknown", "NF"])
        for i, (usage, votes) in enumerate(zip(USAGES, VOTES, strict=True)):
            rows.writerow([usage, f"fer{i:07d}.png" if i < 5 else "", *votes])


def write_ferplus(folder: Path, form: str) -> Path:
    write_votes(folder)
    if form == "fer2013.csv":
        write_fer2013(folder / "fer2013.csv")
        return folder
    parts = ("Train", "Train", "Train", "Valid", "Test")
    place = {"official": "data/FER2013{}/{}", "zip": "{}/{}"}[form]
    images = {
        place.format(part, f"fer{i:07d}.png"): encoded(PICTURES[i]) for i, part in enumerate(parts)
    }
    if form == "official":
        for name, data in images.items():
            put(folder / name, data)
        put(folder / "data" / "FER2013Train" / "label.csv", "fer0000000.png,...\n")
    else:
        with zipfile.ZipFile(folder / "images.zip", "w") as packed:
            for name, data in images.items():
                packed.writestr(name, data)
    return folder


def test_fer2013_is_read_in_the_common_order_of_classes(tmp_path):
    read = read_fer2013(write_fer2013(tmp_path / "fer2013.csv"), duplicates="keep")
    np.testing.assert_array_equal(read.pixels, PICTURES)
    assert read.classes == CLASSES[:7]
    names = ["anger", "disgust", "fear", "happiness", "sadness", "neutral"]
    assert [read.classes[label] for label in read.labels_N] == names
    assert read.split_N.tolist() == ["train"] * 3 + ["validation", "test", "test"]
    assert (read.votes_NK, read.duplicates) == (None, 0)


@pytest.mark.parametrize("form", ["official", "zip", "fer2013.csv"])
def test_ferplus_is_read_from_every_form_it_comes_in(tmp_path, form):
    read = read_ferplus(write_ferplus(tmp_path / "set", form), duplicates="keep")
    np.testing.assert_array_equal(read.pixels[:], PICTURES[:5])
    assert [read.classes[label] for label in read.labels_N] == [
        *("neutral", "anger", "surprise", "neutral", "happiness"),
    ]
    np.testing.assert_array_equal(read.votes_NK, np.array(VOTES)[:5, :8])
    assert read.split_N.tolist() == ["train"] * 3 + ["validation", "test"]


def test_the_majority_rule_asks_for_more_than_half_of_the_votes_that_are_not_alone(tmp_path):
    labels = labels_of(np.array(VOTES), "majority")
    # 4 of 4 + 3 + 2 are no majority, 6 of 6 + 2 are; unknown and NF are no emotions.
    assert labels.tolist() == [-1, CLASSES.index("anger"), -1, -1, CLASSES.index("happiness"), -1]
    half = np.array([[5, 5, *[0] * 8], [6, 4, *[0] * 8], [5, 1, 1, 1, 1, 1, *[0] * 4]])
    assert labels_of(half, "majority").tolist() == [-1, 0, 0]
    with pytest.raises(ValueError, match="the rule is 'most'"):
        labels_of(half, "most")


@pytest.mark.parametrize("form", ["official", "zip", "fer2013.csv"])
def test_images_that_equal_one_held_out_longer_are_left_out_and_counted(tmp_path, form):
    read = read_ferplus(write_ferplus(tmp_path / "set", form))
    assert read.duplicates == 2
    np.testing.assert_array_equal(read.pixels[:], [PICTURES[i] for i in (0, 3, 4)])
    assert read.split_N.tolist() == ["train", "validation", "test"]
    assert (len(read.labels_N), len(read.votes_NK), len(read)) == (3, 3, 3)
    fer2013 = read_fer2013(write_fer2013(tmp_path / "fer2013.csv"))
    assert (fer2013.duplicates, fer2013.paths) == (2, ["00000", "00003", "00004", "00005"])


def test_a_list_of_equal_images_goes_before_their_pixels(tmp_path):
    folder = write_ferplus(tmp_path, "zip")
    rows = ["group,usage,image", "1,Training,fer0000000.png", "1,PublicTest,fer0000003.png"]
    put(folder / "pixel_duplicates.csv", "\n".join(rows))
    read = read_ferplus(folder)
    assert (read.duplicates, [Path(path).stem[-1] for path in read.paths]) == (1, list("1234"))


@needs_shared("data/ferplus")
def test_the_rules_keep_as_many_images_as_the_papers_say():
    votes = read_votes(FERPLUS / "fer2013new.csv")
    assert len(votes.names) == 35_887
    named = np.array([name != "" for name in votes.names])
    assert named.sum() == 35_714
    for rule, *parts in (("argmax8", 28_559, 3_578, 3_573), ("majority", 25_060, 3_199, 3_153)):
        kept = Counter(votes.split_R[named & (labels_of(votes.votes_RK, rule) >= 0)].tolist())
        assert [kept[split] for split in SPLITS] == parts


@needs_shared("data/ferplus")
def test_of_the_training_images_692_equal_a_held_out_one():
    read = read_ferplus(FERPLUS)
    left = Counter(read.split_N.tolist())
    assert left == {"train": 28_559 - 692, "validation": 3_578 - 46, "test": 3_573}
    assert (read.duplicates, read.pixels[[0, -1]].shape) == (692 + 46, (2, 48, 48))


@pytest.mark.parametrize(
    ("file", "was", "becomes", "complaint"),
    [
        ("fer2013new.csv", "Training", "Trainig", r"line 2: the usage is 'Trainig'"),
        ("fer2013new.csv", "contempt", "scorn", "has no column contempt"),
        ("fer2013new.csv", "fer0000004.png,0,10", "fer0000004.png,0,x", "line 6: votes are whole"),
        ("fer2013new.csv", "0,0,0,10\n", "0\n", "line 7 ends before its last column"),
        ("fer2013.csv", "\n3,", "\n7,", r"line 5: the label is '7'; labels are 0 to 6"),
        ("fer2013.csv", "\n3,", "\n3,256 ", "line 5 has 2305 pixels"),
        ("fer2013.csv", f"\n3,{PICTURES[3][0, 0]} ", "\n3,256 ", "line 5: a pixel is no number"),
    ],
)
def test_what_is_wrong_in_a_csv_is_named_by_its_line(tmp_path, file, was, becomes, complaint):
    write_ferplus(tmp_path, "fer2013.csv")
    path = tmp_path / file
    text = path.read_text().replace("\r\n", "\n")
    path.write_text(text.replace(was, becomes))
    with pytest.raises(ValueError, match=complaint):
        read_ferplus(tmp_path) if file == "fer2013new.csv" else read_fer2013(path)


def test_images_that_do_not_fit_the_votes_are_refused(tmp_path):
    folder = write_ferplus(tmp_path / "a", "official")
    (folder / "data" / "FER2013Valid" / "fer0000003.png").unlink()
    with pytest.raises(ValueError, match=r"data has no image of fer0000003\.png"):
        read_ferplus(folder)
    shutil.rmtree(folder / "data")
    with pytest.raises(FileNotFoundError, match=r"neither images\.zip nor FER2013Train nor"):
        read_ferplus(folder)
    lines = write_fer2013(folder / "fer2013.csv").read_text().splitlines(keepends=True)
    (folder / "fer2013.csv").write_text("".join(lines[:-1]))
    with pytest.raises(ValueError, match="do not have the same rows"):
        read_ferplus(folder)


# RAF-DB


def write_raf_db(folder: Path) -> Path:
    lines = ["train_00001.jpg 5", "train_00002.jpg 1", "test_0001.jpg 7"]
    put(folder / "EmoLabel" / "list_patition_label.txt", "\n".join(lines) + "\n")
    for i, line in enumerate(lines):
        name = line.split(".")[0]
        picture = np.stack([grey(10 * i + c, 100) for c in range(3)], axis=2)
        put(folder / "Image" / "aligned" / f"{name}_aligned.jpg", encoded(picture))
    return folder


def test_raf_db_is_read_from_its_own_layout(tmp_path):
    read = read_raf_db(write_raf_db(tmp_path))
    assert [read.classes[label] for label in read.labels_N] == ["sadness", "surprise", "neutral"]
    assert read.classes == CLASSES[:7]
    assert read.split_N.tolist() == ["train", "train", "test"]
    assert read.pixels.shape == (3, 100, 100, 3)
    np.testing.assert_array_equal(read.pixels[1][:, :, 2], grey(12, 100))
    assert read.paths[0] == "train_00001_aligned.jpg"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("train_00002.jpg 8", "line 2: the label is '8'; labels are 1 to 7"),
        ("train_00002.jpg 1.5", r"line 2: the label is '1\.5'"),
        ("train_00002.jpg", "line 2: a name and a number"),
        ("valid_00002.jpg 1", "line 2: a name and a number"),
        ("train_00009.jpg 1", r"line 2: .*aligned has no train_00009_aligned\.jpg"),
    ],
)
def test_what_is_wrong_in_raf_dbs_list_is_named_by_its_line(tmp_path, line, complaint):
    listing = write_raf_db(tmp_path) / "EmoLabel" / "list_patition_label.txt"
    listing.write_text(listing.read_text().replace("train_00002.jpg 1", line))
    with pytest.raises(ValueError, match=complaint):
        read_raf_db(tmp_path)


# CK+

FIVE_52 = np.rint(IDENTITY_CANVAS.template_52 * 3 + (150, 60)).astype(int)
DOTS_RGB = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255)]


def write_ck_plus(folder: Path, subjects: int = 12, landmarks: bool = True) -> Path:
    """A labelled sequence of four frames a subject, and a second one without a label."""
    frame = np.zeros((480, 640, 3), np.uint8)
    for point, colour in zip(FIVE_52, DOTS_RGB, strict=True):
        cv2.circle(frame, point.tolist(), 9, colour, -1)
    file = encoded(frame)
    points = np.zeros((68, 2))
    for part, point in zip(
        (slice(36, 42), slice(42, 48), slice(30, 31), slice(48, 49), slice(54, 55)),
        FIVE_52,
        strict=True,
    ):
        count = part.stop - part.start
        points[part] = point + np.arange(count)[:, None] - (count - 1) / 2
    text = "\n".join(f"   {x:.7e}   {y:.7e}" for x, y in points)
    for i in range(subjects):
        for sequence in ("001", "002"):
            where = f"S{i + 5:03d}/{sequence}"
            stem = f"S{i + 5:03d}_{sequence}_{{:08d}}"
            for n in range(1, 5):
                name = f"{where}/{stem.format(n)}"
                put(folder / "cohn-kanade-images" / f"{name}.png", file)
                if landmarks:
                    put(folder / "Landmarks" / f"{name}_landmarks.txt", text)
            if sequence == "001":
                label = folder / "Emotion" / where / f"{stem.format(4)}_emotion.txt"
                put(label, f"   {i % 7 + 1}.0000000e+00\n")
            else:
                (folder / "Emotion" / where).mkdir(parents=True)
        put(folder / "cohn-kanade-images" / where / ".DS_Store", "hidden")
    return folder


def test_ck_plus_gives_the_last_frames_of_its_labelled_sequences(tmp_path):
    read = read_ck_plus(write_ck_plus(tmp_path))
    assert len(read) == 3 * 12
    assert [Path(path).stem for path in read.paths[:3]] == [f"S005_001_{n:08d}" for n in (2, 3, 4)]
    assert read.classes == CLASSES[1:]
    names = [read.classes[label] for label in read.labels_N[::3]]
    assert names[:8] == [
        *("anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise", "anger"),
    ]
    peaks = read_ck_plus(tmp_path, frames="peak")
    assert (len(peaks), peaks.paths[0]) == (12, read.paths[2])


def test_nobody_of_ck_plus_is_in_two_of_the_ten_folds(tmp_path):
    read = read_ck_plus(write_ck_plus(tmp_path))
    folds_of = {}
    for path, fold in zip(read.paths, read.split_N, strict=True):
        folds_of.setdefault(path.split("/")[0], set()).add(str(fold))
    assert all(len(folds) == 1 for folds in folds_of.values())
    assert set(read.split_N.tolist()) == {f"fold {i}" for i in range(10)}
    assert folds_of["S005"] == folds_of["S015"] == {"fold 0"}


def test_ck_plus_faces_are_aligned_by_their_landmarks(tmp_path):
    crop = read_ck_plus(write_ck_plus(tmp_path, subjects=1)).pixels[0]
    assert crop.shape == (112, 112, 3)
    for (x, y), colour in zip(IDENTITY_CANVAS.template_52, DOTS_RGB, strict=True):
        assert np.abs(crop[round(y), round(x)].astype(int) - colour).max() < 60


def test_ck_plus_without_landmarks_is_taken_as_it_is(tmp_path):
    read = read_ck_plus(write_ck_plus(tmp_path, subjects=2, landmarks=False))
    assert read.pixels.shape == (6, 480, 640, 3)


def test_what_is_wrong_with_ck_plus_is_named(tmp_path):
    folder = write_ck_plus(tmp_path, subjects=2)
    label = folder / "Emotion" / "S005" / "001" / "S005_001_00000004_emotion.txt"
    label.write_text("   8.0000000e+00\n")
    with pytest.raises(ValueError, match=r"S005_001_00000004_emotion\.txt: the label is '8\.0"):
        read_ck_plus(folder)
    label.write_text("   1.0000000e+00\n")
    marks = folder / "Landmarks" / "S005" / "001" / "S005_001_00000003_landmarks.txt"
    marks.write_text("1 2 3\n")
    with pytest.raises(ValueError, match=r"S005_001_00000003_landmarks\.txt has not 68 points"):
        read_ck_plus(folder).pixels[1]
    shutil.rmtree(folder / "cohn-kanade-images" / "S006" / "001")
    with pytest.raises(ValueError, match="has 0 of 3 frames of S006/001"):
        read_ck_plus(folder)
