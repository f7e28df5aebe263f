"""Photographs out of files: every kind upright in 8-bit RGB, every bad one an ImageError."""

import io
import random
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import cv2
import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageFile, PngImagePlugin

from service.errors import (
    ImageEmpty,
    ImageError,
    ImageTooManyBytes,
    ImageTooManyPixels,
    ImageTruncated,
    ImageUnreadable,
    OutOfMemory,
)
from service.imagefile import read_photograph
from service.imagefile.jpeg import MAX_SCANS
from service.vision import faces

LIMITS = {"max_bytes": 1 << 20, "max_pixels": 1_000_000}
KINDS = {
    "jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    "progressive jpeg": ("JPEG", {"quality": 95, "subsampling": 0, "progressive": True}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {"lossless": True}),
    "lossy webp": ("WEBP", {"quality": 95}),
    "bmp": ("BMP", {}),
    "tiff": ("TIFF", {}),
    "packed tiff": ("TIFF", {"compression": "tiff_lzw"}),
    "gif": ("GIF", {}),
    "avif": ("AVIF", {"quality": 95, "subsampling": "4:4:4"}),
    "heic": ("HEIF", {"quality": 95}),
}
pillow_heif.register_heif_opener()


def read(data, **limits):
    photograph = read_photograph(data, **{**LIMITS, **limits})
    assert isinstance(photograph, faces.Photograph)
    assert photograph.pixels_rgb.dtype == np.uint8
    assert photograph.pixels_rgb.flags.c_contiguous
    assert photograph.pixels_rgb.shape == (photograph.height, photograph.width, 3)
    return photograph.pixels_rgb


def flag(height=48, width=64):
    """A picture that no turn and no mirror leaves as it is: four fields, one of them small."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = (220, 30, 30)
    pixels[: height // 2, width // 2 :] = (30, 200, 40)
    pixels[height // 2 :] = (40, 60, 210)
    pixels[height // 2 :, width - 16 :] = (240, 240, 30)
    return pixels


def encoded(pixels, kind, **options):
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    name, usual = KINDS[kind]
    file = io.BytesIO()
    image.save(file, name, **{**usual, **options})
    return file.getvalue()


def assert_alike(pixels, expected, most=3.0):
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).mean() < most


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_is_read(kind):
    assert_alike(read(encoded(flag(), kind)), flag())


@pytest.mark.parametrize("kind", ["png", "webp", "bmp", "tiff", "packed tiff"])
def test_a_kind_without_loss_is_read_to_the_bit(kind):
    np.testing.assert_array_equal(read(encoded(flag(), kind)), flag())


# What EXIF says of the stored rows and columns, by which side of the upright picture comes first.
STORED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: upright[:, ::-1].transpose(1, 0, 2),
    7: lambda upright: upright[::-1, ::-1].transpose(1, 0, 2),
    8: lambda upright: upright[::-1].transpose(1, 0, 2),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff", "packed tiff", "avif", "heic"])
def test_orientation_is_applied(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(STORED[orientation](flag()))
    assert_alike(read(encoded(stored, kind, exif=exif.tobytes())), flag())


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_changes_nothing(value):
    exif = Image.Exif()
    exif[0x0112] = value
    assert_alike(read(encoded(flag(), "jpeg", exif=exif.tobytes())), flag())


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # as in service; pytest's own come after
def test_broken_exif_does_not_hide_the_picture():
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01\x03\0"
    assert_alike(read(encoded(flag(), "jpeg", exif=exif)), flag())


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_scaled_and_not_clipped(suffix, channels):
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16)
    samples = np.tile(ramp, (4, 1))[..., None].repeat(channels, axis=2)
    done, data = cv2.imencode(suffix, samples)
    assert done
    pixels = read(data.tobytes())
    assert np.abs(pixels[0, :, 0].astype(int) - np.arange(256)).max() <= 1
    assert (pixels[..., :1] == pixels).all()


def test_big_endian_sixteen_bit_tiff_is_read():
    ramp = np.linspace(0, 65535, 64).astype(">u2").reshape(1, 64)
    image = Image.frombytes("I;16B", (64, 1), ramp.tobytes())
    expected = np.rint(ramp[0].astype(float) / 257)
    np.testing.assert_array_equal(read(encoded(image, "tiff"))[0, :, 0], expected)


@pytest.mark.parametrize("mode", ["F", "I"])
def test_thirty_two_bits_are_refused_with_the_reason(mode):
    with pytest.raises(ImageUnreadable, match="32 bits"):
        read(encoded(Image.new(mode, (8, 8)), "tiff"))


@pytest.mark.parametrize(
    ("mode", "kind"), [("L", "jpeg"), ("L", "png"), ("1", "png"), ("1", "tiff")]
)
def test_grey_and_black_and_white_become_rgb(mode, kind):
    half = np.zeros((16, 32), np.uint8)
    half[:, 16:] = 255
    pixels = read(encoded(Image.fromarray(half).convert(mode), kind))
    assert_alike(pixels, half[..., None].repeat(3, axis=2))


@pytest.mark.parametrize("kind", ["jpeg", "tiff"])
def test_cmyk_becomes_rgb(kind):
    image = Image.fromarray(flag()).convert("CMYK")
    assert_alike(read(encoded(image, kind)), flag(), most=6)


def test_cmyk_jpeg_is_inverted_with_and_without_adobes_mark():
    marked = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "jpeg")
    at = marked.index(b"\xff\xee")
    bare = marked[:at] + marked[at + 2 + int.from_bytes(marked[at + 2 : at + 4], "big") :]
    assert b"Adobe" in marked
    assert b"Adobe" not in bare
    for data in (marked, bare):
        assert_alike(read(data), np.full((16, 16, 3), (255, 0, 0), np.uint8))


@pytest.mark.parametrize("kind", ["png", "gif", "bmp", "tiff"])
def test_palette_becomes_rgb(kind):
    image = Image.fromarray(flag()).quantize(8)
    assert_alike(read(encoded(image, kind)), flag())


@pytest.mark.parametrize("kind", ["png", "webp", "tiff", "avif", "heic"])
def test_transparency_lies_over_white(kind):
    rgba = np.dstack([flag(), np.full(flag().shape[:2], 255, np.uint8)])
    rgba[:24, :32] = (0, 0, 0, 0)
    expected = flag()
    expected[:24, :32] = 255
    assert_alike(read(encoded(rgba, kind)), expected)


def test_half_transparency_mixes_with_white():
    rgba = np.full((4, 4, 4), (0, 0, 0, 128), np.uint8)
    assert abs(int(read(encoded(rgba, "png"))[0, 0, 0]) - 127) <= 1


@pytest.mark.parametrize(("mode", "clear"), [("P", 0), ("L", 0), ("RGB", (0, 0, 0))])
def test_a_transparent_colour_of_a_png_lies_over_white(mode, clear):
    image = Image.new(mode, (8, 8), clear)
    assert (read(encoded(image, "png", transparency=clear)) == 255).all()


@pytest.mark.parametrize("kind", ["gif", "webp", "png", "tiff", "avif"])
def test_the_first_frame_of_an_animation_is_taken(kind):
    first, *others = [Image.new("RGB", (32, 32), colour) for colour in ("red", "lime", "blue")]
    data = encoded(first, kind, save_all=True, append_images=others)
    assert_alike(read(data), np.full((32, 32, 3), (255, 0, 0), np.uint8))


def test_several_pictures_of_one_jpeg_file_give_the_first():
    file = io.BytesIO()
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    frames[0].save(file, "MPO", save_all=True, append_images=frames[1:])
    assert_alike(read(file.getvalue()), np.full((32, 32, 3), (254, 0, 0), np.uint8))


# What is refused


def test_nothing_is_no_image():
    with pytest.raises(ImageEmpty):
        read(b"")


def test_bytes_over_the_limit_are_refused_with_both_numbers():
    data = encoded(flag(), "png")
    assert read(data, max_bytes=len(data)).shape == flag().shape
    with pytest.raises(ImageTooManyBytes) as caught:
        read(data, max_bytes=len(data) - 1)
    assert (caught.value.value, caught.value.limit) == (len(data), len(data) - 1)


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_over_the_limit_are_refused_and_at_the_limit_taken(kind):
    data = encoded(flag(), kind)
    assert read(data, max_pixels=48 * 64).shape == flag().shape
    with pytest.raises(ImageTooManyPixels) as caught:
        read(data, max_pixels=48 * 64 - 1)
    error = caught.value
    assert (error.width, error.height, error.value, error.limit) == (64, 48, 3072, 3071)


def png_chunk(kind, content):
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def declaring(kind, width, height):
    """A file of a few bytes that declares a size and has next to no pixels."""
    if kind == "png":
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(bytes(100)))
        return b"\x89PNG\r\n\x1a\n" + chunks + png_chunk(b"IEND", b"")
    if kind == "gif":
        return b"GIF89a" + struct.pack("<HH", width, height) + encoded(flag(), "gif")[10:]
    data = bytearray(encoded(flag(), kind))
    if kind == "jpeg":
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", height, width)
    if kind == "bmp":
        data[18:26] = struct.pack("<ii", width, height)
    if kind == "tiff":
        for tag, value in ((256, width), (257, height)):
            at = data.index(struct.pack("<HH", tag, 4))
            data[at + 8 : at + 12] = struct.pack("<I", value)
    return bytes(data)


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "bmp", "tiff"])
def test_a_declared_size_is_refused_before_a_pixel_is_decoded(kind, monkeypatch):
    data = declaring(kind, 60_000, 50_000)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("it was decoded"))
    with pytest.raises(ImageTooManyPixels) as caught:
        read(data, max_pixels=40_000_000)
    assert (caught.value.width, caught.value.height) == (60_000, 50_000)


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
@pytest.mark.parametrize("kind", ["png", "jpeg", "bmp"])
def test_an_image_without_an_area_is_unreadable(kind, size):
    with pytest.raises((ImageUnreadable, ImageTruncated)):
        read(declaring(kind, *size))


def test_a_small_file_that_unpacks_to_very_much_is_cut_off_by_its_own_header():
    bomb = zlib.compress(bytes(50_000_000), 9)
    header = struct.pack(">IIBBBBB", 100, 100, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", bomb)
    assert read(data + png_chunk(b"IEND", b"")).shape == (100, 100, 3)


def test_text_that_unpacks_to_very_much_is_never_unpacked(monkeypatch):
    text = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(50_000_000), 9))
    data = encoded(flag(), "png")
    unpack = PngImagePlugin.PngStream
    monkeypatch.setattr(unpack, "chunk_zTXt", lambda *_: pytest.fail("it was unpacked"))
    np.testing.assert_array_equal(read(data[:33] + text + data[33:]), flag())


def test_a_jpeg_of_endless_scans_is_refused():
    data = encoded(flag(), "progressive jpeg")
    scan = data[data.rindex(b"\xff\xda") : -2]
    assert read(data[:-2] + scan * 3 + b"\xff\xd9").shape == flag().shape
    with pytest.raises(ImageUnreadable, match="scans"):
        read(data[:-2] + scan * MAX_SCANS + b"\xff\xd9")


@pytest.mark.parametrize(
    "data",
    [
        b"hello",
        b"\0" * 1000,
        b"%PDF-1.7\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\0\0\x01\0\x01\0\x10\x10" + bytes(100),  # ICO
        b"\xd7\xcd\xc6\x9a" + bytes(100),  # WMF
        b"P6\n1 1\n255\nabc",  # PPM
        b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100),  # JPEG 2000
        b"https://example.org/a.jpg",
    ],
)
def test_what_is_in_no_accepted_format_is_unreadable(data):
    with pytest.raises(ImageUnreadable, match="no known format") as caught:
        read(data)
    assert "HEIC" in caught.value.accepted


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_ends_early_is_truncated(kind, share):
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    data = encoded(noise, kind)
    data = data[: int(len(data) * share)]
    with pytest.raises(ImageTruncated) as caught:
        read(data)
    assert caught.value.value == len(data)
    assert caught.value.format.split()[0] in ("JPEG", "PNG", "WebP", "BMP", "TIFF", "GIF", "HEIC")


def test_a_broken_checksum_is_unreadable():
    data = bytearray(encoded(flag(), "png"))
    data[40] ^= 0xFF
    with pytest.raises(ImageUnreadable, match="PNG data are broken"):
        read(bytes(data))


@pytest.mark.parametrize("failure", [MemoryError(), OSError("out of memory error when reading")])
def test_a_decoder_out_of_memory_says_nothing_against_the_image(monkeypatch, failure):
    def exhausted(*_):
        raise failure

    monkeypatch.setattr(ImageFile.ImageFile, "load", exhausted)
    with pytest.raises(OutOfMemory):
        read(encoded(flag(), "png"))


def mutated(data, rng):
    """The file with a few bytes changed, left out, doubled or cut off."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(data))
        span = slice(at, at + rng.choice((1, 2, 4, 16)))
        change = rng.randrange(5)
        if change == 0:
            data[at] = rng.randrange(256)
        elif change == 1:
            data[span] = rng.randbytes(len(data[span]))
        elif change == 2:
            data[span] = rng.choice((b"\0", b"\xff", b"\x7f")) * len(data[span])
        elif change == 3:
            data[span] = data[span] * 2
        else:
            del data[span.start : rng.choice((span.stop, len(data)))]
        data = data or bytearray(b"\0")
    return bytes(data)


def fuzz(kind, count):
    rng = random.Random(f"{kind} {count}")
    data = encoded(flag(), kind)
    for _ in range(count):
        with suppress(ImageError):
            read(mutated(data, rng))


@pytest.mark.parametrize("kind", KINDS)
def test_broken_bytes_give_a_photograph_or_an_image_error(kind):
    fuzz(kind, 150)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_very_many_broken_bytes_give_a_photograph_or_an_image_error(kind):
    fuzz(kind, 20_000)


def test_many_threads_read_what_one_reads():
    files = [encoded(np.roll(flag(), shift, axis=1), kind) for shift in (0, 9) for kind in KINDS]
    alone = [read(data) for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(read, files * 4))
    for pixels, expected in zip(together, alone * 4, strict=True):
        np.testing.assert_array_equal(pixels, expected)
