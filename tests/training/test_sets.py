"""One door: whatever form a set of crops comes in, the same crops come out."""

import os
import warnings
import zipfile
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from tests.training.crops import drawn_crops, png, write_set
from training.data.crops import Crops, join
from training.data.pixels import Files
from training.data.recordio import RecordWriter
from training.data.sets import NamedSet, named_sets, of_training, read_set

CROPS = drawn_crops(people=2, each=2)


def write_folder(folder: Path, crops=CROPS) -> Path:
    for name, pixels in zip(crops.paths, crops.pixels_NHWC, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(pixels))
    return folder


def write_rec(path: Path) -> Path:
    with RecordWriter(path) as out:
        for label, pixels in zip(CROPS.labels_N, CROPS.pixels_NHWC, strict=True):
            out.add(label, png(pixels))
    return path


def test_every_form_gives_the_same_crops(tmp_path):
    listing, folder = write_set(CROPS, tmp_path), write_folder(tmp_path / "v1.people")
    (tmp_path / "beside").mkdir()
    beside = write_set(CROPS, tmp_path / "beside")
    with zipfile.ZipFile(beside.with_suffix(".zip")) as packed:
        packed.extractall(beside.with_suffix(""))
    forms = [
        *(listing, listing.with_suffix(".zip"), folder, write_rec(tmp_path / "a.rec")),
        beside.with_suffix(""),
    ]
    for path in forms:
        read = read_set(path, tmp_path / "cache")
        np.testing.assert_array_equal(read.pixels_NHWC[:], CROPS.pixels_NHWC, err_msg=str(path))
        assert read.labels_N.tolist() == [0, 0, 1, 1]
        assert len(read.people) == 2


def test_a_folders_people_are_its_folders(tmp_path):
    folder = write_folder(tmp_path / "people")
    write_folder(folder / "p0" / "deeper", drawn_crops(people=1, each=1))
    write_folder(folder / "p0 b", drawn_crops(people=1, each=1))  # sorts before p0/ by its letters
    (folder / "p1" / ".DS_Store").write_bytes(b"hidden")
    read = read_set(folder, tmp_path / "cache")
    assert read.people == ["p0", "p0 b", "p1"]
    first = ["p0/0.png", "p0/1.png", "p0/deeper/p0/0.png"]
    assert read.paths == [*first, "p0 b/p0/0.png", "p1/2.png", "p1/3.png"]
    assert read.labels_N.tolist() == [0, 0, 0, 1, 2, 2]


def test_a_folder_of_sets_is_refused_and_what_systems_put_there_is_nobodys(tmp_path):
    people = write_folder(tmp_path / "sets" / "people")
    write_folder(people / "@eaDir", drawn_crops(people=1, each=1))
    with pytest.raises(ValueError, match=r"people holds folders of its own \(p0, p1\), .*: give "):
        read_set(people.parent, tmp_path / "cache")
    assert read_set(people, tmp_path / "cache").people == ["p0", "p1"]


def test_a_folder_is_decoded_again_only_when_a_crop_changes(tmp_path):
    folder, cache = write_folder(tmp_path / "people"), tmp_path / "cache"
    read_set(folder, cache)
    [kept] = cache.iterdir()
    os.utime(kept, ns=(1, 4 * 10**18))
    read_set(folder, cache)
    assert kept.stat().st_mtime_ns == 4 * 10**18
    os.utime(folder / "p1" / "2.png", ns=(1, 5 * 10**18))
    read_set(folder, cache)
    assert kept.stat().st_mtime_ns != 4 * 10**18


def test_folders_of_one_name_do_not_share_what_was_decoded(tmp_path):
    other = drawn_crops(people=4, each=1)
    folders = {"a": CROPS, "b": other}
    for where, crops in folders.items():
        write_folder(tmp_path / where / "people", crops)
    for where in "aba":
        read = read_set(tmp_path / where / "people", tmp_path / "cache")
        np.testing.assert_array_equal(read.pixels_NHWC, folders[where].pixels_NHWC)


def test_a_zip_is_read_by_several_processes_at_once(tmp_path):
    content = {f"{i}": bytes([i]) * 20_000 for i in range(50)}
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        for name, data in content.items():
            packed.writestr(name, data)
    files = Files(tmp_path / "a.zip")
    assert files.names() == sorted(content)  # opened before the fork

    def read_all() -> None:
        for name, data in list(content.items()) * 10:
            assert files.read(name) == data

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
        readers = [get_context("fork").Process(target=read_all) for _ in range(2)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
    assert [reader.exitcode for reader in readers] == [0, 0]


@pytest.mark.parametrize(
    ("name", "error", "complaint"),
    [
        ("nothing", FileNotFoundError, "nothing is not there"),
        ("nothing.csv", FileNotFoundError, r"nothing\.csv is not there"),
        ("empty", FileNotFoundError, "no file in a person's folder"),
        ("flat", ValueError, r"a\.png lies in no person's folder"),
        ("text.txt", ValueError, r"text\.txt is no set of crops"),
        ("broken", ValueError, r"p/a\.png is not an image"),
    ],
)
def test_what_is_no_set_is_refused_by_name(tmp_path, name, error, complaint):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").touch()
    for file in ("flat/a.png", "broken/p/a.png"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_bytes(b"no image")
    with pytest.raises(error, match=complaint):
        read_set(tmp_path / name, tmp_path / "cache")


def test_joined_with_a_rec_nothing_is_decoded_beforehand(tmp_path):
    rec = read_set(write_rec(tmp_path / "a.rec"), tmp_path)
    joined = join(CROPS, rec, rec)
    assert not isinstance(joined.pixels_NHWC, np.ndarray)
    expected = np.concatenate([CROPS.pixels_NHWC] * 3)
    np.testing.assert_array_equal(joined.pixels_NHWC[:], expected)
    assert joined.people == ["0", "1", "p0", "p1"]
    assert joined.labels_N.tolist() == [2, 2, 3, 3, 0, 0, 1, 1, 0, 0, 1, 1]
    with pytest.raises(ValueError, match=r"\(112, 112, 3\) and \(96, 96, 3\) do not join"):
        join(rec, drawn_crops(people=1, each=1, side=96))


def test_sets_are_named_with_a_prefix_of_their_paths_and_a_share_of_the_batch():
    assert named_sets("train families:0.25 strangers/ff") == [
        NamedSet("train", "", None),
        NamedSet("families", "", 0.25),
        NamedSet("strangers", "ff", None),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no set is named"),
        ("train train:0.5", "train is named twice"),
        ("train:half", "train:half has a share of 'half'"),
        ("train:0", r"train:0 is not NAME\[/PREFIX\]\[:SHARE\] with a share in \(0, 1\]"),
        ("train:nan", "train:nan is not"),
        (":0.5", ":0.5 is not"),
        ("train:0.7 families:0.6", "the shares add up to 1.3; the limit is 1"),
    ],
)
def test_sets_that_cannot_be_are_refused_by_what_is_wrong(text, message):
    with pytest.raises(ValueError, match=message):
        named_sets(text)


def test_every_tenth_face_of_fairface_is_left_to_calibration():
    names = ["ff/1.webp", "ff/10.webp", "ff/101.webp", "ff/2340.webp", "utk/10_0.webp", "ff/7.webp"]
    labels = np.array([0, 1, -1, 1, 2, 3])
    pixels = np.arange(6, dtype=np.uint8)[:, None, None, None]
    kept = of_training(Crops(pixels, names, labels, ["a", "b", "c", "d"]))
    assert kept.paths == ["ff/1.webp", "ff/101.webp", "utk/10_0.webp", "ff/7.webp"]
    assert kept.pixels_NHWC.ravel().tolist() == [0, 2, 4, 5]
    assert kept.people == ["a", "c", "d"]
    assert kept.labels_N.tolist() == [0, -1, 1, 2]
    faces = of_training(Crops(pixels, names, labels, ["a", "b", "c", "d"]), "ff/")
    assert faces.paths == ["ff/1.webp", "ff/101.webp", "ff/7.webp"]
    with pytest.raises(ValueError, match="a path that begins with 'xy'"):
        of_training(Crops(pixels, names, labels, ["a", "b", "c", "d"]), "xy")
