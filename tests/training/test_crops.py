"""Sets of crops: read once, kept, and refused by name when something is off."""

import os
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from tests.training.crops import drawn_crops, png, write_set
from training.data.crops import join, read_crops


def test_a_zip_of_crops_is_read_in_the_csvs_order_and_in_rgb(tmp_path):
    crops = drawn_crops()
    read = read_crops(write_set(crops, tmp_path), tmp_path / "cache")
    np.testing.assert_array_equal(read.pixels_NHWC, crops.pixels_NHWC)
    assert (read.paths, read.people) == (crops.paths, crops.people)
    np.testing.assert_array_equal(read.labels_N, crops.labels_N)


def test_a_folder_beside_the_csv_serves_as_well_as_a_zip(tmp_path):
    crops = drawn_crops(people=2, each=1)
    path = write_set(crops, tmp_path)
    with zipfile.ZipFile(tmp_path / "set.zip") as packed:
        packed.extractall(tmp_path / "set")
    (tmp_path / "set.zip").unlink()
    pixels = read_crops(path, tmp_path / "cache").pixels_NHWC
    np.testing.assert_array_equal(pixels, crops.pixels_NHWC)


def test_what_was_decoded_is_used_again_until_the_images_change(tmp_path):
    path, cache = write_set(drawn_crops(), tmp_path), tmp_path / "cache"
    read_crops(path, cache)
    [kept] = cache.iterdir()
    os.utime(kept, ns=(1, 4 * 10**18))
    read_crops(path, cache)
    assert kept.stat().st_mtime_ns == 4 * 10**18
    os.utime(tmp_path / "set.zip", ns=(1, 5 * 10**18))
    read_crops(path, cache)
    assert kept.stat().st_mtime_ns != 4 * 10**18


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"no image", "p0/0.png is not an image"),
        (png(np.zeros((10, 10, 3), np.uint8)), "p0/1.png is"),
    ],
)
def test_a_crop_that_does_not_fit_is_named_and_leaves_no_half_array(tmp_path, content, complaint):
    path = write_set(drawn_crops(people=1, each=2), tmp_path)
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as packed:
        packed.writestr("p0/0.png", content)
        packed.writestr("p0/1.png", png(np.zeros((12, 12, 3), np.uint8)))
    with pytest.raises(ValueError, match=complaint):
        read_crops(path, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize(
    ("file", "content", "complaint"),
    [
        (
            "set.csv",
            b"file,name\np0/0.png,p0\n",
            r"set\.csv has no column path, person",
        ),
        ("set.csv", b"path,person\np9/9.png,p9\n", r"set\.zip has no p9/9\.png"),
        ("set.csv", b"path,person\np0/0.png\n", r"set\.csv, line 2 ends before its last column"),
        ("set.csv", b"path,person\np0/\xe9.png,p0\n", r"set\.csv is no csv: .* can't decode"),
        ("set.csv", b"\xef\xbb\xbfpath,person\n", r"lists no crop"),
        ("set.zip", b"PK and no more", r"set\.zip is no zip that can be read"),
    ],
)
def test_a_set_that_is_not_whole_is_refused_by_name(tmp_path, file, content, complaint):
    path = write_set(drawn_crops(people=1, each=2), tmp_path)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(ValueError, match=complaint):
        read_crops(path, tmp_path / "cache")


def test_sets_of_one_name_do_not_share_what_was_decoded(tmp_path):
    crops = drawn_crops()
    other = replace(crops, pixels_NHWC=255 - crops.pixels_NHWC)
    for where, each in (("a", crops), ("b", other)):
        (tmp_path / where / "mine").mkdir(parents=True)
        path = write_set(each, tmp_path / where / "mine")
        read = read_crops(path, tmp_path / "cache")
        np.testing.assert_array_equal(read.pixels_NHWC, each.pixels_NHWC)


def test_a_damaged_crop_in_a_zip_is_named(tmp_path):
    path = write_set(drawn_crops(people=1, each=1), tmp_path)
    packed = bytearray(path.with_suffix(".zip").read_bytes())
    packed[100] ^= 255  # within the image, whose checksum stands in the zip
    path.with_suffix(".zip").write_bytes(packed)
    with pytest.raises(ValueError, match=r"set\.zip: p0/0\.png is damaged"):
        read_crops(path, tmp_path / "cache")


def test_without_images_the_error_says_what_was_looked_for(tmp_path):
    path = write_set(drawn_crops(), tmp_path)
    (tmp_path / "set.zip").unlink()
    with pytest.raises(FileNotFoundError, match=r"neither set\.zip nor a folder"):
        read_crops(path, tmp_path)


def test_joined_sets_keep_their_people_apart_and_strangers_unlabelled(tmp_path):
    crops = drawn_crops(people=2, each=1)
    other = drawn_crops(people=1, each=2)
    other.people[0] = "somebody else"
    other.labels_N[1] = -1
    joined = join(crops, other)
    assert joined.people == ["p0", "p1", "somebody else"]
    assert joined.labels_N.tolist() == [0, 1, 2, -1]
    assert len(joined) == 4


def test_sets_of_crops_of_two_sizes_do_not_join():
    with pytest.raises(ValueError, match=r"\(112, 112, 3\) and \(96, 96, 3\) do not join"):
        join(drawn_crops(), drawn_crops(side=96))
