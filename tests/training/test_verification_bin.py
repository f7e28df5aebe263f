"""Pairs of crops in a pickle: read as data, and nothing in it is ever called."""

import os
import pickle
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.training.crops import drawn_crops, png
from training.data.verification_bin import read_bin, write_bin

CROPS = drawn_crops(people=2, each=2).pixels_NHWC
IMAGES = [png(crop) for crop in CROPS]
SAME = [True, False]


def test_what_was_written_is_read(tmp_path):
    write_bin(tmp_path / "lfw.bin", IMAGES, SAME)
    read = read_bin(tmp_path / "lfw.bin")
    assert read.pixels_NHWC.shape == (4, 112, 112, 3)
    np.testing.assert_array_equal(read.pixels_NHWC[:], CROPS)
    assert (read.same_P.tolist(), read.same_P.dtype) == (SAME, bool)
    assert [p.name for p in tmp_path.iterdir()] == ["lfw.bin"]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("content", [(IMAGES, SAME), [IMAGES, [1, 0]], (tuple(IMAGES), (1, 0))])
def test_pickles_of_every_protocol_are_read(tmp_path, content, protocol):
    (tmp_path / "a.bin").write_bytes(pickle.dumps(content, protocol=protocol))
    read = read_bin(tmp_path / "a.bin")
    np.testing.assert_array_equal(read.pixels_NHWC[1:], CROPS[1:])
    assert read.same_P.tolist() == SAME


@pytest.mark.parametrize("protocol", range(6))
def test_truths_of_numpy_are_read(tmp_path, protocol):
    content = pickle.dumps((IMAGES, [np.bool_(True), np.bool_(False)]), protocol=protocol)
    for module in (b"numpy._core.multiarray", b"numpy.core.multiarray"):  # numpy 2, numpy 1
        written = content.replace(b"\x8c\x16numpy._core", b"\x8c\x15numpy.core")
        older = written.replace(b"numpy._core", b"numpy.core")
        (tmp_path / "a.bin").write_bytes(content if b"_core" in module else older)
        assert read_bin(tmp_path / "a.bin").same_P.tolist() == SAME


def python2_string(data: bytes) -> bytes:
    """SHORT_BINSTRING or BINSTRING, as Python 2 writes a str."""
    short = len(data) < 256
    size = len(data).to_bytes(1 if short else 4, "little")
    return (b"U" if short else b"T") + size + data


def test_pickles_of_python_2_are_read(tmp_path):
    strings = b"".join(python2_string(image) for image in IMAGES[:2])
    protocol_2 = b"\x80\x02](" + strings + b"e]q\x01\x88a\x86q\x02."
    quoted = b"".join(b"S" + repr(image)[1:].encode() + b"\np1\na" for image in IMAGES[:2])
    protocol_0 = b"(lp0\n" + quoted + b"(lp3\nI01\natp4\n."
    protocol_0 = b"(" + protocol_0  # the tuple's mark
    for content in (protocol_2, protocol_0):
        (tmp_path / "a.bin").write_bytes(content)
        read = read_bin(tmp_path / "a.bin")
        np.testing.assert_array_equal(read.pixels_NHWC[:], CROPS[:2])
        assert read.same_P.tolist() == [True]


class Call:
    """Pickles itself as the call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_a_call_of_os_system_is_refused_by_its_name_and_not_made(tmp_path, protocol):
    trace = tmp_path / "trace"
    evil = pickle.dumps((IMAGES, [Call(os.system, f"touch {trace}")]), protocol=protocol)
    (tmp_path / "a.bin").write_bytes(evil)
    pickle.loads(evil)
    assert trace.exists()  # the pickle does what it is meant to
    trace.unlink()
    with pytest.raises(ValueError, match=r"a\.bin is refused: it asks for (posix|nt)\.system"):
        read_bin(tmp_path / "a.bin")
    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (pickle.dumps(Call(eval, "1")), r"builtins\.eval"),
        (pickle.dumps((IMAGES, [np.float64(1), 0])), r"numpy's dtype 'f8'"),
        (pickle.dumps((IMAGES, np.array(SAME))), r"numpy.*_reconstruct"),
        (pickle.dumps((IMAGES, [np.dtype("O")])), r"numpy's dtype 'O8'"),
        (pickle.dumps(([None], [])), "instruction NONE"),
        (b"(lp0\n(lp1\nb.", "instruction BUILD"),
        (b"cnumpy.core.multiarray\nscalar\n(I1\nI1\ntR.", "not for a truth"),
        (pickle.dumps(bytearray(b"a"), protocol=5), "instruction BYTEARRAY8"),
        (pickle.dumps({}), "instruction EMPTY_DICT"),
        (pickle.dumps(None), "instruction NONE"),
        (pickle.dumps(1.5), "instruction BINFLOAT"),
        (b"(S'true'\nios\nsystem\n.", r"os\.system"),
        (b"\x82\x01.", "instruction EXT1"),
        (b"Pid\n.", "instruction PERSID"),
        (b"\xff.", "instruction 0xff"),
        (pickle.dumps(Call(__import__("codecs").encode, "a", "rot13")), "codec"),
        (b"cbuiltins\ngetattr\n.", r"builtins\.getattr"),
        (b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93.", r"builtins\.exec"),
    ],
)
def test_more_than_data_is_refused(tmp_path, content, complaint):
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(ValueError, match=f"a.bin is refused: .*{complaint}"):
        read_bin(tmp_path / "a.bin")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ((IMAGES, [True]), "4 images for 1 pairs"),
        (([], []), "0 images for 0 pairs"),
        ((IMAGES, SAME, SAME), "no pair of a list of images and a list of truths"),
        ((b"ab", b"c"), "no pair of a list"),
        (([*IMAGES[:3], 5], SAME), "image 3 is int"),
        ((IMAGES, [True, b"1"]), "truth 1 is bytes"),
        ((IMAGES, [True, 2]), "truth is 2, not True or False"),
        (([b"", *IMAGES[1:]], SAME), r"image 0 \(pair 0\) is not an image"),
    ],
)
def test_lists_that_do_not_fit_are_refused(tmp_path, content, complaint):
    (tmp_path / "a.bin").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=rf"a\.bin.*{complaint}"):
        read_bin(tmp_path / "a.bin")


def test_a_broken_image_is_named_when_it_is_asked_for(tmp_path):
    write_bin(tmp_path / "a.bin", [*IMAGES[:3], IMAGES[3][:20]], SAME)
    read = read_bin(tmp_path / "a.bin")
    with pytest.raises(ValueError, match=r"a\.bin: image 3 \(pair 1\) is not an image"):
        read.pixels_NHWC[3]


def test_two_images_make_a_pair(tmp_path):
    with pytest.raises(ValueError, match="4 images are not two for each of 3 pairs"):
        write_bin(tmp_path / "a.bin", IMAGES, [True] * 3)
    assert not list(tmp_path.iterdir())


WHOLE = pickle.dumps((IMAGES[:2], [True]))


@settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.binary(max_size=40), st.integers(0, len(WHOLE)), st.booleans())
def test_whatever_the_bytes_a_file_is_read_or_refused(tmp_path, noise, at, whole):
    content = noise if whole else WHOLE[:at] + noise + WHOLE[at + len(noise) :]
    (tmp_path / "a.bin").write_bytes(content)
    with suppress(ValueError):
        read_bin(tmp_path / "a.bin")


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x04]r\xff\xff\xff\x7f.",  # a place in the memo that would take 32 GB as an array
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fa.",  # more bytes than there are addresses
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x00].",  # a frame of as many
        b"",
    ],
)
def test_sizes_that_are_only_claimed_cost_no_memory(tmp_path, content):
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.bin"):
        read_bin(tmp_path / "a.bin")
