"""Sets of crops in RecordIO: bytes as MXNet writes them, read one by one, refused by the byte."""

import pickle
import struct
import warnings
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.training.crops import drawn_crops, png
from training.data.recordio import RecordWriter, read_rec
from training.data.records import MAGIC_BYTES, Records, pack

CROPS = drawn_crops(people=3, each=2)
# Each example writes its file anew; and a busy machine is slow.
ONE_FOLDER = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


def write(path: Path, crops=CROPS) -> Path:
    with RecordWriter(path) as out:
        for label, pixels in zip(crops.labels_N, crops.pixels_NHWC, strict=True):
            out.add(label, png(pixels))
    return path


def offsets(path: Path) -> list[int]:
    lines = path.with_suffix(".idx").read_text().splitlines()
    return [int(line.split("\t")[1]) for line in lines]


def test_what_was_written_is_read(tmp_path):
    read = read_rec(write(tmp_path / "train.rec"))
    np.testing.assert_array_equal(read.pixels_NHWC[:], CROPS.pixels_NHWC)
    np.testing.assert_array_equal(read.labels_N, CROPS.labels_N)
    assert read.labels_N.dtype == np.int64
    assert read.people == ["0", "1", "2"]
    assert (len(read), read.paths[0], read.paths[-1]) == (6, "train/1", "train/6")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "property",
        "train.heads.npz",
        "train.idx",
        "train.rec",
    ]


def test_a_set_has_insightfaces_layout(tmp_path):
    path = write(tmp_path / "train.rec")
    records = Records(path)
    heads = [records.read(at) for at in offsets(path)]
    assert (heads[0].labels, heads[0].image) == ((7, 10), b"")
    assert [h.label for h in heads[1:7]] == [0, 0, 1, 1, 2, 2]
    assert [(h.labels, h.image) for h in heads[7:]] == [((1, 3), b""), ((3, 5), b""), ((5, 7), b"")]
    assert [h.id for h in heads] == list(range(10))
    assert path.with_name("property").read_text() == "3,112,112\n"
    assert path.with_suffix(".idx").read_text().startswith("0\t0\n1\t40\n")


# Two records as MXNet's pack and MXIndexedRecordIO write them: an image of one label, id 0, and one
# of the labels (1, 0), id 1, whose second is followed by five bytes and three of padding.
BY_HAND = bytes.fromhex(
    "0a23d7ce 1b000000"  # magic; whole, 27 bytes
    "00000000 0000803f 0000000000000000 0000000000000000"  # no list, label 1.0, id 0, id2 0
    "616263 00"  # abc, one byte of padding
    "0a23d7ce 25000000"  # magic; whole, 37 bytes
    "02000000 00000000 0100000000000000 0000000000000000"  # a list of two, id 1
    "0000803f 00000000"  # 1.0, 0.0
    "6465666768 000000"
)


def test_bytes_written_by_hand_are_read_and_packed_as_such(tmp_path):
    (tmp_path / "a.rec").write_bytes(BY_HAND)
    records = Records(tmp_path / "a.rec")
    assert records.offsets().tolist() == [0, 36]
    first, second = records.read(0), records.read(36)
    assert (first.label, first.labels, first.id, first.image) == (1, (), 0, b"abc")
    assert (second.label, second.labels, second.id, second.image) == (1, (1, 0), 1, b"defgh")
    assert pack(1, 0, b"abc") + pack((1, 0), 1, b"defgh") == BY_HAND


def test_a_payload_with_the_magic_number_is_split_as_dmlc_splits_it(tmp_path):
    image = MAGIC_BYTES + b"abcd" + MAGIC_BYTES * 2 + b"x" + MAGIC_BYTES + b"yz"
    packed = pack(5, 3, image)
    parts, at = [], 0
    while at < len(packed):
        magic, word = struct.unpack_from("<II", packed, at)
        assert magic == 0xCED7230A
        parts.append((word >> 29, word & 0x1FFFFFFF))
        at += 8 + -(-parts[-1][1] // 4) * 4
    # The header's 24 bytes, abcd, nothing between two of them; the last is not on a fourth byte.
    assert parts == [(1, 24), (2, 4), (2, 0), (3, 7)]
    (tmp_path / "a.rec").write_bytes(packed + pack(1, 4, b"next"))
    records = Records(tmp_path / "a.rec")
    first, second = (records.read(int(at)) for at in records.offsets())
    assert (first.image, second.image) == (image, b"next")
    assert records.heads(records.offsets()).labels_R.tolist() == [5, 1]


def test_a_header_with_the_magic_number_is_read_too(tmp_path):
    (tmp_path / "a.rec").write_bytes(pack((2, 0), 0xCED7230A, b"image"))
    records = Records(tmp_path / "a.rec")
    heads = records.heads(records.offsets())
    assert (heads.labels_R.tolist(), heads.ids_R.tolist()) == ([2], [0xCED7230A])


@settings(max_examples=30, deadline=None, suppress_health_check=ONE_FOLDER)
@given(
    st.lists(
        st.tuples(
            st.one_of(
                st.integers(0, 1 << 24), st.lists(st.integers(0, 99), min_size=1, max_size=3)
            ),
            st.integers(0, (1 << 64) - 1),
            st.lists(st.sampled_from([MAGIC_BYTES, b"a", b"bc", b"\0\0\0\0"]), max_size=9),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_any_record_comes_back(tmp_path, rows):
    path = tmp_path / "a.rec"
    path.write_bytes(b"".join(pack(label, key, b"".join(image)) for label, key, image in rows))
    records = Records(path)
    for at, (label, key, image) in zip(records.offsets(), rows, strict=True):
        read = records.read(int(at))
        assert (list(read.labels) or read.label) == label
        assert (read.id, read.image) == (key, b"".join(image))
    first = [label if isinstance(label, int) else label[0] for label, *_ in rows]
    assert records.heads(records.offsets()).labels_R.tolist() == first


@settings(max_examples=30, deadline=None, suppress_health_check=ONE_FOLDER)
@given(st.binary(min_size=1, max_size=120), st.integers(0, len(BY_HAND) - 1), st.booleans())
def test_whatever_the_bytes_a_file_is_read_or_refused(tmp_path, noise, at, whole):
    path = tmp_path / "a.rec"
    path.write_bytes(noise if whole else BY_HAND[:at] + noise + BY_HAND[at + len(noise) :])
    with suppress(ValueError):
        read_rec(path)


def test_without_an_index_the_file_is_gone_through_by_the_records_own_ids(tmp_path):
    # The head and the people behind the images, as InsightFace's packer leaves them.
    crops = CROPS.pixels_NHWC
    images = [pack((key - 1, 1), key, png(crops[key])) for key in (3, 1, 2)]
    path = tmp_path / "train.rec"
    path.write_bytes(b"".join([*images, pack((4, 7), 0), *(pack((1, 2), k) for k in (4, 5, 6))]))
    read = read_rec(path)
    assert read.labels_N.tolist() == [0, 1, 2]
    assert list(read.paths) == ["train/1", "train/2", "train/3"]
    np.testing.assert_array_equal(read.pixels_NHWC[:], crops[1:4])


def test_without_a_head_every_record_is_an_image(tmp_path):
    path = tmp_path / "train.rec"
    path.write_bytes(b"".join(pack(7, 0, png(pixels)) for pixels in CROPS.pixels_NHWC[:3]))
    read = read_rec(path)
    assert read.labels_N.tolist() == [7, 7, 7]
    assert len(read.people) == 8


def test_crops_are_indexed_like_an_array(tmp_path):
    lazy, array = read_rec(write(tmp_path / "a.rec")).pixels_NHWC, CROPS.pixels_NHWC
    assert (lazy.shape, len(lazy), lazy.dtype) == (array.shape, len(array), array.dtype)
    wanted = [
        *(0, -1, np.int64(3), slice(1, 4), slice(None, None, 4), slice(9, 12)),
        *(np.array([4, 0, -2]), array[:, 0, 0, 0] > 0, [1, 1]),
    ]
    for index in wanted:
        np.testing.assert_array_equal(lazy[index], array[index])
    np.testing.assert_array_equal(np.concatenate([lazy, lazy[:1]])[-1], array[0])
    for beyond in (6, -7):
        with pytest.raises(IndexError):
            lazy[beyond]


def test_crops_are_read_in_other_processes_as_in_this_one(tmp_path):
    pixels = read_rec(write(tmp_path / "a.rec")).pixels_NHWC
    packed = pickle.dumps(pixels)
    assert len(packed) < 20_000  # the way to the file, not the file
    np.testing.assert_array_equal(pickle.loads(packed)[:], CROPS.pixels_NHWC)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
        with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
            for i, crop in enumerate(pool.map(pixels.__getitem__, range(6))):
                np.testing.assert_array_equal(crop, CROPS.pixels_NHWC[i])


def test_heads_are_read_once_and_again_when_the_file_changes(tmp_path, monkeypatch):
    path = write(tmp_path / "a.rec")
    seen = []
    heads = Records.heads
    monkeypatch.setattr(Records, "heads", lambda *a: seen.append(1) or heads(*a))
    for _ in range(3):
        assert len(read_rec(path)) == 6
    assert len(seen) == 1
    kept = tmp_path / "a.heads.npz"
    kept.write_bytes(kept.read_bytes()[:100])
    assert len(read_rec(path)) == 6
    write(path, drawn_crops(people=2, each=2))
    assert len(read_rec(path)) == 4
    assert len(seen) == 3


def test_a_file_cut_off_inside_a_record_names_the_record(tmp_path):
    path = write(tmp_path / "a.rec")
    whole, last = path.read_bytes(), offsets(path)[-1]
    for size in (len(whole) - 1, last + 30, last + 5):
        path.write_bytes(whole[:size])
        with pytest.raises(
            ValueError, match=rf"a\.rec is cut off: .* inside the record at byte {last}"
        ):
            read_rec(path)
        path.with_suffix(".idx").rename(tmp_path / "kept")
        with pytest.raises(ValueError, match=f"record at byte {last}"):
            read_rec(path)
        (tmp_path / "kept").rename(path.with_suffix(".idx"))


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize(
    ("magic", "complaint"),
    [
        (0x12345678, "0x12345678, where a record's magic"),
        (0x3ED7230A, "0x3ed7230a, the magic number of dmlc"),
    ],
)
def test_a_wrong_magic_number_is_named_with_its_byte(tmp_path, magic, complaint, indexed):
    path = write(tmp_path / "a.rec")
    data, at = bytearray(path.read_bytes()), offsets(path)[3]
    data[at : at + 4] = struct.pack("<I", magic)
    path.write_bytes(data)
    if not indexed:
        path.with_suffix(".idx").unlink()
    with pytest.raises(ValueError, match=f"at byte {at} is {complaint}"):
        read_rec(path)


@pytest.mark.parametrize("label", [3, -1, 1.5, float("nan"), float("inf")])
def test_a_label_out_of_range_is_named_with_its_record(tmp_path, label):
    path = write(tmp_path / "a.rec")
    data, at = bytearray(path.read_bytes()), offsets(path)[2]
    data[at + 12 : at + 16] = struct.pack("<f", label)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"record 2 at byte {at} has the label .* from 0 to 2"):
        read_rec(path)


def test_an_image_that_cannot_be_decoded_is_named_when_it_is_asked_for(tmp_path):
    path = tmp_path / "a.rec"
    with RecordWriter(path) as out:
        for image in (png(CROPS.pixels_NHWC[0]), b"no image", png(CROPS.pixels_NHWC[0][:9])):
            out.add(0, image)
    pixels = read_rec(path).pixels_NHWC
    at = offsets(path)
    with pytest.raises(ValueError, match=f"the image of record 2 at byte {at[2]} is not an image"):
        pixels[1]
    with pytest.raises(ValueError, match=rf"record 3 at byte {at[3]} is \(9, 112, 3\), the first"):
        pixels[2]


@pytest.mark.parametrize(
    ("file", "content", "complaint"),
    [
        ("a.rec", b"", r"a\.rec is empty"),
        ("a.idx", b"0\tx\n", r"a\.idx: lines of key and byte"),
        ("a.idx", b"0\t0\n0\t40\n", "names a key twice"),
        ("a.idx", b"0\t0\n1\t44\n", "at byte 44 is"),
        ("a.idx", b"0\t0\n1\t99999999\n", "cut off"),
        ("a.idx", b"0\t0\n1\t40\n", "images are the records 1 to 6, but 1 records have an image"),
        ("a.idx", b"0\t0\n", "0 records have an image"),
        ("property", b"many", "people,height,width"),
    ],
)
def test_what_is_wrong_with_a_set_is_named(tmp_path, file, content, complaint):
    path = write(tmp_path / "a.rec")
    (tmp_path / file).write_bytes(content)
    with pytest.raises(ValueError, match=complaint):
        read_rec(path)


def test_a_set_that_is_not_there_is_not_found(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_rec(tmp_path / "a.rec")


def test_labels_are_written_person_by_person(tmp_path):
    with RecordWriter(tmp_path / "a.rec") as out:
        for label, complaint in ((1, "1 follows -1"), (-1, "-1 follows -1")):
            with pytest.raises(ValueError, match=complaint):
                out.add(label, b"a")
        out.add(0, b"a")
        with pytest.raises(ValueError, match="label 2 follows 0"):
            out.add(2, b"a")


def test_a_writer_goes_on_where_it_was_and_writes_the_same_file(tmp_path):
    images = [png(pixels) for pixels in CROPS.pixels_NHWC]
    whole = write(tmp_path / "whole.rec").read_bytes()
    path = tmp_path / "a.rec"
    with suppress(KeyboardInterrupt), RecordWriter(path) as out:
        for i in range(3):
            out.add(i // 2, images[i])
        out.sync()
        end = out.end
        out.add(1, images[3][:50])
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.glob("a.*")] == ["a.rec.part"]
    with pytest.raises(ValueError, match=r"crops of 112 px, not 96"):
        RecordWriter(path, side=96, resume_at=end)
    with RecordWriter(path, resume_at=end) as out:
        for i in range(3, 6):
            out.add(i // 2, images[i])
    assert path.read_bytes() == whole
