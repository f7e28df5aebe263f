"""CelebA's attributes, from the authors' files and from a csv beside a zip."""

import zipfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.shared import SHARED, needs_shared
from training.data.attributes import NAMES, read_celeba

RNG = np.random.default_rng(0)
LABELS = RNG.random((4, 40)) < 0.5
PICTURES = RNG.integers(0, 256, (4, 218, 178, 3), np.uint8)
FILES = [f"{i:06d}.jpg" for i in range(1, 5)]


def encoded(pixels_rgb: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels_rgb[:, :, ::-1])[1].tobytes()


def write_lists(folder: Path, *, attributes: str, parts: str) -> None:
    """list_attr_celeba.txt and list_eval_partition.txt, in the folders of those names."""
    lines = ["4", " ".join(NAMES) + " "]
    for file, labels in zip(FILES, LABELS, strict=True):
        lines.append(f"{file} " + " ".join(f"{1 if label else -1:2d}" for label in labels))
    for where in (attributes, parts):
        (folder / where).mkdir(parents=True, exist_ok=True)
    (folder / attributes / "list_attr_celeba.txt").write_text("\n".join(lines) + "\n")
    partition = "".join(f"{file} {part}\n" for file, part in zip(FILES, (0, 0, 1, 2), strict=True))
    (folder / parts / "list_eval_partition.txt").write_text(partition)


def write_celeba(folder: Path, form: str = "flat") -> Path:
    if form == "as handed out":
        write_lists(folder, attributes="Anno", parts="Eval")
        (folder / "Img").mkdir()
        with zipfile.ZipFile(folder / "Img" / "img_align_celeba.zip", "w") as packed:
            for file, picture in zip(FILES, PICTURES, strict=True):
                packed.writestr(f"img_align_celeba/{file}", encoded(picture))
        return folder
    write_lists(folder, attributes=".", parts=".")
    images = folder / "img_align_celeba"
    images.mkdir()
    for file, picture in zip(FILES, PICTURES, strict=True):
        (images / file).write_bytes(encoded(picture))
    return folder


@pytest.mark.parametrize("form", ["flat", "as handed out"])
def test_celeba_is_read_from_the_authors_files(tmp_path, form):
    read = read_celeba(write_celeba(tmp_path, form))
    np.testing.assert_array_equal(read.labels_NA, LABELS)
    np.testing.assert_array_equal(read.pixels[:], PICTURES)
    assert (read.labels_NA.dtype, read.names, read.paths) == (bool, NAMES, FILES)
    assert read.split_N.tolist() == ["train", "train", "validation", "test"]


def write_csv(folder: Path) -> Path:
    lines = [",".join(["path", "split", "identity", *NAMES])]
    for i, split in enumerate(("train", "test")):
        lines.append(",".join([f"{i}.png", split, "7", *map(str, LABELS[i].astype(int))]))
    (folder / "attributes.csv").write_text("\n".join(lines) + "\n")
    with zipfile.ZipFile(folder / "crops.zip", "w") as packed:
        for i in range(2):
            packed.writestr(f"{i}.png", encoded(PICTURES[i]))
    return folder


def test_a_csv_beside_a_zip_is_read_as_well(tmp_path):
    read = read_celeba(write_csv(tmp_path))
    np.testing.assert_array_equal(read.labels_NA, LABELS[:2])
    np.testing.assert_array_equal(read.pixels[:], PICTURES[:2])
    assert read.split_N.tolist() == ["train", "test"]


@needs_shared("data/celeba")
def test_the_shared_part_of_celeba_is_read():
    read = read_celeba(SHARED / "data" / "celeba")
    assert Counter(read.split_N.tolist()) == {"train": 6_469, "validation": 1_000, "test": 2_000}
    assert read.pixels.shape == (9_469, 136, 112, 3)
    # Of the first row: 5_o_Clock_Shadow, Attractive and Young, but not Bald.
    first = dict(zip(read.names, read.labels_NA[0].tolist(), strict=True))
    assert [first[n] for n in ("5_o_Clock_Shadow", "Attractive", "Young", "Bald")] == [1, 1, 1, 0]


@pytest.mark.parametrize(
    ("file", "was", "becomes", "complaint"),
    [
        ("list_attr_celeba.txt", "Bald", "Hairless", "line 2: the forty names"),
        ("list_attr_celeba.txt", "4\n", "5\n", "announces 5 images and has 4"),
        ("list_attr_celeba.txt", "000003.jpg", "000003.jpg 1", "line 5: a name and forty of"),
        ("list_attr_celeba.txt", "000003.jpg", "000009.jpg", r"line 5: 000009\.jpg is in no part"),
        ("list_eval_partition.txt", "000003.jpg 1", "000003.jpg 3", "line 3: a name and 0, 1 or 2"),
        ("list_eval_partition.txt", "000004", "000004.jpg 2\n000009", "list of parts 5"),
    ],
)
def test_what_is_wrong_in_a_list_is_named_by_its_line(tmp_path, file, was, becomes, complaint):
    path = write_celeba(tmp_path) / file
    path.write_text(path.read_text().replace(was, becomes))
    with pytest.raises(ValueError, match=complaint):
        read_celeba(tmp_path)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no list_attr_celeba\.txt in"):
        read_celeba(tmp_path)
    (write_celeba(tmp_path) / "img_align_celeba" / "000002.jpg").unlink()
    with pytest.raises(ValueError, match=r"img_align_celeba has no 000002\.jpg"):
        read_celeba(tmp_path)


@pytest.mark.parametrize(
    ("was", "becomes", "complaint"),
    [("test", "tset", "line 3: values are 0 or 1"), ("Bald", "Hairless", "no column Bald")],
)
def test_what_is_wrong_in_the_csv_is_named(tmp_path, was, becomes, complaint):
    path = write_csv(tmp_path) / "attributes.csv"
    path.write_text(path.read_text().replace(was, becomes))
    with pytest.raises(ValueError, match=complaint):
        read_celeba(tmp_path)
