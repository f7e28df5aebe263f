"""Layouts of pixels: each comes out right, or is refused by its name, never as something else."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from service.errors import ImageError, ImageTruncated, ImageUnreadable
from service.imagefile import read_photograph
from tests.imagebytes import bmp_file, png_chunk, png_file, tiff_file

ORDERS = pytest.mark.parametrize("order", ["<", ">"])
RAMP = np.array([[10, 60, 120, 250], [1, 2, 3, 4]], np.uint8)
COLORS = np.dstack([RAMP, RAMP[::-1], 255 - RAMP])
GREY = RAMP[..., None].repeat(3, axis=2)
EVEN = np.full(RAMP.shape, 128, np.uint8)  # an alpha
FIRST_EXTRA = {338: (3, (1,))}  # an alpha that the colors are multiplied by
ALPHA = {338: (3, (2,))}
PALETTE = tuple(i * 257 for channel in (1, 3, 7) for i in [(k * channel) % 256 for k in range(256)])


def read(data):
    return read_photograph(data, max_bytes=1 << 22, max_pixels=1_000_000).pixels_rgb


def deep(samples):
    return samples.astype(np.uint16) * 257


def over_white(pixels, alpha):
    return np.rint((pixels.astype(float) * alpha + 255.0 * (255 - alpha)) / 255)


def assert_within(pixels, expected, most=1):
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).max() <= most


# TIFF


FORMS_OF_FILE = pytest.mark.parametrize(("order", "big"), [("<", False), (">", False), ("<", True)])


@FORMS_OF_FILE
@pytest.mark.parametrize("in_planes", [False, True])
@pytest.mark.parametrize("widen", [np.asarray, deep])
def test_rgb_tiff_of_every_layout(order, in_planes, widen, big):
    data = tiff_file(widen(COLORS), 2, order=order, in_planes=in_planes, big=big)
    assert_within(read(data), COLORS)


@ORDERS
@pytest.mark.parametrize("widen", [np.asarray, deep])
def test_grey_tiff_with_white_as_zero_is_inverted(order, widen):
    assert_within(read(tiff_file(widen(255 - RAMP), 0, order=order)), GREY)
    assert_within(read(tiff_file(widen(RAMP), 1, order=order)), GREY)


def test_grey_tiff_of_twelve_bits_is_scaled_to_its_own_range():
    levels = np.array([0, 160, 2048, 4095])
    packed = np.frombuffer(
        int("".join(f"{v:03x}" for v in levels), 16).to_bytes(6, "big"), np.uint8
    )
    tags = {256: (4, (4,)), 258: (3, (12,))}
    pixels = read(tiff_file(packed[None], 1, tags=tags))
    np.testing.assert_array_equal(pixels[0, :, 0], np.rint(levels * 255 / 4095))


@ORDERS
def test_grey_tiff_with_alpha_lies_over_white(order):
    pixels = over_white(GREY, 128)
    assert_within(read(tiff_file(np.dstack([RAMP, EVEN]), 1, order=order, tags=ALPHA)), pixels)
    multiplied = np.dstack([np.rint(RAMP * (128 / 255)).astype(np.uint8), EVEN])
    assert_within(read(tiff_file(multiplied, 1, order=order, tags=FIRST_EXTRA)), pixels)


@ORDERS
@pytest.mark.parametrize("widen", [np.asarray, deep])
@pytest.mark.parametrize("in_planes", [False, True])
def test_rgb_tiff_with_alpha_lies_over_white(order, widen, in_planes):
    samples = widen(np.dstack([COLORS, EVEN]))
    data = tiff_file(samples, 2, order=order, in_planes=in_planes, tags=ALPHA)
    assert_within(read(data), over_white(COLORS, 128))


@pytest.mark.parametrize("tags", [{}, ALPHA])
def test_an_alpha_that_is_zero_everywhere_is_none_in_tiff(tags):
    samples = np.dstack([COLORS, np.zeros_like(EVEN)])
    assert_within(read(tiff_file(samples, 2, tags=tags)), COLORS)


@ORDERS
@pytest.mark.parametrize("in_planes", [False, True])
@pytest.mark.parametrize("widen", [np.asarray, deep])
def test_cmyk_tiff_becomes_rgb(order, in_planes, widen):
    inks = np.dstack([255 - COLORS, np.zeros_like(RAMP)])
    assert_within(read(tiff_file(widen(inks), 5, order=order, in_planes=in_planes)), COLORS)


def test_cmyk_tiff_with_inverted_inks_becomes_rgb():
    inks = np.dstack([COLORS, np.full_like(RAMP, 255)])
    assert_within(read(tiff_file(inks, 5, tags={336: (3, (255, 0))})), COLORS)


@pytest.mark.parametrize("scale", [1, 257])
def test_palette_tiff_with_colors_of_eight_and_sixteen_bits(scale):
    colors = tuple(value // 257 * scale for value in PALETTE)
    expected = np.dstack([(RAMP.astype(int) * k) % 256 for k in (1, 3, 7)])
    assert_within(read(tiff_file(RAMP, 3, tags={320: (3, colors)})), expected)


def test_lab_tiff_without_color_is_grey():
    lab = np.dstack([RAMP, np.zeros_like(RAMP), np.zeros_like(RAMP)])
    pixels = read(tiff_file(lab, 8)).astype(int)
    assert np.ptp(pixels, axis=2).max() <= 6
    assert (np.diff(pixels[0, :, 1]) > 0).all()


@pytest.mark.parametrize("in_planes", [False, True])
def test_ycbcr_tiff_becomes_rgb(in_planes):
    ycc = np.asarray(Image.fromarray(COLORS).convert("YCbCr"))
    tags = {530: (3, (1, 1))}
    assert_within(read(tiff_file(ycc, 6, in_planes=in_planes, tags=tags)), COLORS, most=4)


@pytest.mark.parametrize(
    ("samples", "photometric", "tags", "named"),
    [
        (RAMP / np.float32(255), 1, {339: (3, (3,))}, "1 sample of 32 bits, floating-point"),
        (COLORS / np.float32(255), 2, {339: (3, (3,) * 3)}, "RGB, 3 samples of 32 bits, floating"),
        (RAMP.view(np.int8), 1, {339: (3, (2,))}, "grey, 1 sample of 8 bits, signed"),
        (deep(RAMP).view(np.int16), 1, {339: (3, (2,))}, "grey, 1 sample of 16 bits, signed"),
        (deep(np.dstack([RAMP, EVEN])), 1, ALPHA, "grey, 2 samples of 16 bits"),
        (np.dstack([RAMP, EVEN]), 1, {}, "grey, 2 samples of 8 bits"),
        (deep(COLORS), 8, {}, "CIELAB, 3 samples of 16 bits"),
        (np.dstack([COLORS, RAMP]), 5, {332: (3, (2,))}, "CMYK, 4 samples of 8 bits"),
        (RAMP, 4, {}, "PhotometricInterpretation 4"),
        (RAMP, None, {}, "lack PhotometricInterpretation"),
        (COLORS, 2, {259: (3, (34712,))}, "compression 34712"),
        (COLORS, 2, {258: (3, (8, 8, 16))}, "RGB, 3 samples of 8/16 bits"),
    ],
)
def test_a_tiff_layout_that_is_not_read_is_named(samples, photometric, tags, named):
    with pytest.raises(ImageUnreadable, match=named):
        read(tiff_file(samples, photometric, tags=tags))


def test_grey_with_alpha_in_planes_is_named():
    data = tiff_file(np.dstack([RAMP, EVEN]), 1, in_planes=True, tags=ALPHA)
    with pytest.raises(ImageUnreadable, match="grey, 2 samples of 8 bits, unsigned, in planes"):
        read(data)


def test_a_tiff_tag_that_is_given_twice_is_refused():
    data = tiff_file(COLORS, 2)
    entry = data.index(struct.pack("<HHI", 277, 3, 1))
    twice = data[:entry] + data[entry - 12 : entry] + data[entry + 12 :]
    with pytest.raises(ImageUnreadable, match="tag 273 is given twice"):
        read(twice)


def test_a_big_endian_bigtiff_is_named():
    with pytest.raises(ImageUnreadable, match="big-endian BigTIFF"):
        read(tiff_file(COLORS, 2, order=">", big=True))


@FORMS_OF_FILE
def test_of_a_tiff_that_begins_with_its_thumbnail_the_full_picture_is_taken(order, big):
    small = tiff_file(
        COLORS[:1, :1], 2, order=order, tags={254: (4, (1,))}, following=True, big=big
    )
    full = tiff_file(COLORS, 2, order=order, at=len(small), big=big)
    assert_within(read(small + full), COLORS)


def test_what_is_wrong_with_another_page_does_not_stop_the_first():
    first = tiff_file(COLORS, 2, following=True)
    wrong = tiff_file(COLORS, 2, tags={338: (1, (0,)), 277: (3, (9,))}, at=len(first))
    entry = wrong.index(struct.pack("<HHI", 277, 3, 1))
    wrong = wrong[: entry + 2] + struct.pack("<H", 12) + wrong[entry + 4 :]  # as a real number
    assert_within(read(first + wrong), COLORS)


def below(first, second):
    """A TIFF whose first page names one below it. Each: samples, photometric, tags."""
    samples, photometric, tags = first
    first = tiff_file(samples, photometric, tags={**tags, 330: (4, (1,))})
    first = tiff_file(samples, photometric, tags={**tags, 330: (4, (len(first),))})
    samples, photometric, tags = second
    return first + tiff_file(samples, photometric, tags=tags, at=len(first))


def test_the_full_picture_below_a_thumbnail_is_taken():
    data = below((COLORS[:1, :1], 2, {254: (4, (1,))}), (COLORS, 2, {254: (4, (0,))}))
    assert_within(read(data), COLORS)


@pytest.mark.parametrize(
    "data",
    [
        below((COLORS, 2, {254: (4, (1,))}), (deep(RAMP), 32803, {})),  # as NEF, ARW, DNG
        below((COLORS, 2, {254: (4, (1,))}), (deep(COLORS), 34892, {})),  # a linear DNG
        tiff_file(COLORS, 2, tags={50706: (1, (1, 4, 0, 0))}),  # a DNG that is its own preview
        tiff_file(deep(RAMP), 32803),  # as PEF
        tiff_file(COLORS, 2, tags={259: (3, (34713,))}),
        b"II*\0\x10\0\0\0CR\x02\0" + bytes(100),  # CR2
        b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(100),  # CR3
        b"II\x1a\0\0\0HEAPCCDR" + bytes(100),  # CRW
        b"IIRO\x08\0\0\0" + bytes(100),  # ORF
        b"IIU\0\x18\0\0\0" + bytes(100),  # RW2
        b"FUJIFILMCCD-RAW 0201" + bytes(100),  # RAF
        b"FOVb" + bytes(100),  # X3F
        b"\0MRM" + bytes(100),
    ],
)
def test_camera_raw_is_refused_and_its_thumbnail_never_taken(data):
    with pytest.raises(ImageUnreadable, match="camera raw is not read; export a JPEG"):
        read(data)


def test_a_tiff_of_thumbnails_alone_is_refused():
    with pytest.raises(ImageUnreadable, match=r"thumbnails .* export a JPEG"):
        read(tiff_file(COLORS, 2, tags={254: (4, (1,))}))


# PNG


def rows_of(samples):
    return [row.tobytes() for row in samples]


def test_png_grey_of_sixteen_bits_with_alpha_lies_over_white():
    samples = np.dstack([deep(RAMP), deep(EVEN)]).astype(">u2")
    pixels = read(png_file(rows_of(samples), 4, bits=16, color=4))
    assert_within(pixels, over_white(GREY, 128))


@pytest.mark.parametrize(("bits", "most"), [(1, 1), (2, 3), (4, 15)])
def test_a_transparent_grey_of_few_bits_lies_over_white(bits, most):
    rows = [bytes([0b01_11_10_00]), bytes([0b00_01_11_10])]
    width = 8 // bits
    levels = [[row[0] >> (8 - bits * (i + 1)) & most for i in range(width)] for row in rows]
    for clear in (0, 1, most):
        chunks = png_chunk(b"tRNS", struct.pack(">H", clear))
        pixels = read(png_file(rows, width, bits=bits, color=0, chunks=chunks))
        expected = [[255 if v == clear else v * 255 // most for v in row] for row in levels]
        np.testing.assert_array_equal(pixels[..., 0], expected)


def test_a_transparent_grey_of_sixteen_bits_lies_over_white():
    samples = deep(RAMP).astype(">u2")
    chunks = png_chunk(b"tRNS", struct.pack(">H", 60 * 257))
    pixels = read(png_file(rows_of(samples), 4, bits=16, color=0, chunks=chunks))
    assert pixels[0, :, 0].tolist() == [10, 255, 120, 250]


def test_a_transparent_color_of_sixteen_bits_is_named():
    samples = deep(COLORS).astype(">u2")
    chunks = png_chunk(b"tRNS", struct.pack(">HHH", 0, 0, 0))
    with pytest.raises(ImageUnreadable, match="16-bit RGB with a transparent color"):
        read(png_file(rows_of(samples), 4, bits=16, color=2, chunks=chunks))


def test_a_palette_with_alphas_lies_over_white():
    chunks = png_chunk(b"PLTE", bytes(range(9))) + png_chunk(b"tRNS", bytes([0, 128]))
    pixels = read(png_file([bytes([0, 1, 2])], 3, bits=8, color=3, chunks=chunks))
    assert_within(pixels[0], np.array([[255, 255, 255], [128, 129, 129], [6, 7, 8]]), most=2)


def spoilt(chunk):
    return chunk[:-4] + bytes([chunk[-4] ^ 0xFF]) + chunk[-3:]


@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes((1 << 20) + 1))),
        png_chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(1 << 24))),
        png_chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes((1 << 20) + 1))),
        png_chunk(b"iCCP", b"a\0\7"),
        png_chunk(b"gAMA", b"\0"),
        png_chunk(b"cHRM", b"\0"),
        png_chunk(b"pHYs", b"\0"),
        png_chunk(b"sRGB", b""),
        png_chunk(b"tRNS", b"\0"),
        png_chunk(b"acTL", b"\0"),
        png_chunk(b"fcTL", bytes(26)),
        png_chunk(b"tEXt", b"\xff" * 70_000),
        spoilt(png_chunk(b"tEXt", b"Comment\0hello")),
        spoilt(png_chunk(b"gAMA", b"\0\1\x86\xa0")),
        spoilt(png_chunk(b"prVt", b"private")),
    ],
    ids=lambda chunk: chunk[4:8].decode() + str(len(chunk)),
)
def test_what_is_wrong_beside_a_png_s_pixels_does_not_stop_them(chunk):
    end = chunk + png_chunk(b"IEND", b"")
    for options in ({"chunks": chunk}, {"end": end}):
        data = png_file(rows_of(COLORS), 4, bits=8, color=2, **options)
        np.testing.assert_array_equal(read(data), COLORS)


def test_a_png_without_its_end_chunk_is_whole_and_one_without_pixels_is_truncated():
    data = png_file(rows_of(COLORS), 4, bits=8, color=2)
    for end in (-12, -4, -1):
        np.testing.assert_array_equal(read(data[:end]), COLORS)
    with pytest.raises(ImageTruncated):
        read(data[:-24])


def test_a_png_with_a_wrong_checksum_of_its_header_is_refused_by_the_chunk_s_name():
    data = bytearray(png_file(rows_of(COLORS), 4, bits=8, color=2))
    data[29] ^= 0xFF
    with pytest.raises(ImageUnreadable, match="checksum of its IHDR"):
        read(bytes(data))


@pytest.mark.parametrize(("name", "named"), [(b"CgBI", "Apple"), (b"ABcD", "ABcD is unknown")])
def test_a_png_of_another_form_is_named(name, named):
    data = png_file(rows_of(COLORS), 4, bits=8, color=2, chunks=png_chunk(name, b"\0" * 4))
    with pytest.raises(ImageUnreadable, match=named):
        read(data)


# BMP

BGRA_MASKS = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)


@pytest.mark.parametrize(("alpha", "shown"), [(0, COLORS), (128, over_white(COLORS, 128))])
def test_a_bmp_s_alpha_counts_unless_it_is_zero_everywhere(alpha, shown):
    rows = rows_of(np.dstack([COLORS[..., ::-1], np.full_like(RAMP, alpha)]))
    assert_within(read(bmp_file(rows, 4, bits=32, masks=BGRA_MASKS)), shown)


@pytest.mark.parametrize(
    ("bits", "colors"), [(1, 2), (4, 2), (8, 2), (4, 16), (8, 16), (8, 256), (4, 3)]
)
def test_a_bmp_with_a_grey_palette_is_read_as_its_palette_says(bits, colors):
    levels = [0, 255] if colors == 2 else list(range(colors))
    values = np.array([[0, 1, 1, 0, 1, 0, 0, 0], [1, 1, 0, 0, 0, 1, 0, 1]]) * (colors - 1)
    packed = {
        1: lambda row: np.packbits(row != 0).tobytes(),
        4: lambda row: bytes(row[::2] << 4 | row[1::2]),
        8: lambda row: bytes(row),
    }[bits]
    rows = [packed(row.astype(np.uint8)) for row in values]
    pixels = read(bmp_file(rows, 8, bits=bits, palette=[(v, v, v) for v in levels]))
    assert_within(pixels, np.array(levels)[values][..., None].repeat(3, axis=2))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"bits": 64}, "64 bits, raw"),
        ({"bits": 24, "compression": 4}, "24 bits, JPEG"),
        ({"bits": 32, "masks": (7, 56, 448, 0)}, "BMP bitfields layout"),
    ],
)
def test_a_bmp_layout_that_is_not_read_is_named(options, named):
    with pytest.raises(ImageUnreadable, match=named):
        read(bmp_file([bytes(32)] * 4, 4, **options))


def run_lengths(width, height, codes):
    """A BMP of 8 bits in run lengths (RLE8) with a palette of two colors."""
    palette = struct.pack("<8B", 0, 0, 0, 0, 255, 255, 255, 0)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(codes), 0, 0, 2, 0)
    file = b"BM" + struct.pack("<IHHI", 54 + 8 + len(codes), 0, 0, 54 + 8)
    return file + header + palette + codes


def test_a_bmp_in_run_lengths_is_read():
    pixels = read(run_lengths(4, 2, b"\4\1\0\0" + b"\2\0\2\1\0\0" + b"\0\1"))
    assert pixels[..., 0].tolist() == [[0, 0, 255, 255], [255] * 4]


@pytest.mark.parametrize(
    ("width", "height", "codes"),
    [
        (4000, 4000, b"\0\1"),
        (1, 4_000_001, b"\0\1"),
        (2000, -2001, b"\0\1"),
        (1000, 1000, b"\1\0" * (1 << 19) + b"\0\1"),
    ],
)
def test_a_bmp_in_run_lengths_that_takes_long_is_refused_by_name(width, height, codes):
    """Pillow decodes them in Python, which of 20 MB takes half a minute."""
    with pytest.raises(ImageUnreadable, match=r"run lengths \(RLE8\).*save it as PNG"):
        read_photograph(run_lengths(width, height, codes), max_bytes=1 << 25, max_pixels=40_000_000)


# JPEG


def jpeg(**options):
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG", quality=80, **options)
    return file.getvalue()


FORMS = pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"restart_marker_blocks": 2}, {"subsampling": 0}]
)


@pytest.mark.parametrize(
    "more",
    [
        b"\xff\xda" * 101,
        b"\0\0\0\x18ftypmp42" + b"\xff\xda\0\x08\x01\x02\xff\xff\xd8" * 500,  # a Motion Photo
        bytes(1000),
        jpeg(progressive=True) * 12,  # as MPO, with more than 100 scans of other pictures
    ],
    ids=["scans", "video", "zeros", "pictures"],
)
def test_what_follows_a_jpeg_s_first_picture_counts_for_nothing(more):
    np.testing.assert_array_equal(read(jpeg() + more), read(jpeg()))


def test_a_comment_that_looks_like_scans_counts_for_nothing():
    comment = b"\xff\xfe" + struct.pack(">H", 2 + 4000) + b"\xff\xda" * 2000
    data = jpeg()
    np.testing.assert_array_equal(read(data[:2] + comment + data[2:]), read(data))


@FORMS
@pytest.mark.parametrize("zeros", [0, 1, 5000])
def test_a_jpeg_that_lacks_only_its_end_mark_is_whole(options, zeros):
    data = jpeg(**options)
    np.testing.assert_array_equal(read(data[:-2] + bytes(zeros)), read(data))
    np.testing.assert_array_equal(read(data[:-1] + bytes(zeros)), read(data))


@FORMS
@pytest.mark.parametrize("zeros", [0, 1, 5000])
@pytest.mark.parametrize("lost", [10, 100, 1000])
def test_a_jpeg_that_lacks_rows_is_truncated_even_with_zeros_in_their_place(options, zeros, lost):
    data = jpeg(**options)
    with pytest.raises(ImageTruncated):
        read(data[:-lost] + bytes(zeros))


def test_a_progressive_jpeg_cut_between_two_scans_is_truncated():
    data = jpeg(progressive=True)
    with pytest.raises(ImageTruncated):
        read(data[: data.rindex(b"\xff\xda")])


@pytest.mark.parametrize(
    ("marker", "byte", "value", "named"),
    [
        (0, 0, 12, "12 bits"),
        (0, 5, 2, "2 components"),
        (3, None, None, "lossless"),
    ],
)
def test_a_jpeg_layout_that_is_not_read_is_named(marker, byte, value, named):
    data = bytearray(jpeg())
    at = data.index(b"\xff\xc0")
    data[at + 1] = 0xC0 + marker
    if byte is not None:
        data[at + 4 + byte] = value
    with pytest.raises(ImageUnreadable, match=named):
        read(bytes(data))


XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/>'
    b"<tiff:Orientation>6</tiff:Orientation></x:xmpmeta>"
)


@pytest.mark.parametrize("with_exif", [False, True])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_orientation_is_exif_s_and_never_xmp_s(kind, with_exif):
    exif = Image.Exif()
    exif[0x010E] = "a description"
    exif[0x011A], exif[0x011B], exif[0x0128] = 72.0, 72.0, 2
    options = {"exif": exif.tobytes()} if with_exif else {}
    file = io.BytesIO()
    if kind == "TIFF":
        options = {"tiffinfo": {700: XMP, **({270: "a description"} if with_exif else {})}}
    elif kind == "HEIF":  # its encoder would obey
        options["xmp"] = XMP.replace(b"tiff", b"TIFF")
    elif kind != "PNG":
        options["xmp"] = XMP
    Image.new("RGB", (64, 32)).save(file, kind, **options)
    data = file.getvalue().replace(b"TIFF:O", b"tiff:O")
    if kind == "PNG":
        text = png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)
        data = data[:33] + text + data[33:]
    assert b"tiff:Orientation" in data
    assert read(data).shape == (32, 64, 3)


# What is no image


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(100), "a video, not a photograph"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0qt  " + bytes(100), "a video, not a photograph"),
        (b"\0\0\0\x08wide\0\0\1\0mdat" + bytes(100), "a video, not a photograph"),
        (b"\x1a\x45\xdf\xa3" + bytes(100), "a video, not a photograph"),
        (b"RIFF\0\0\1\0AVI LIST" + bytes(100), "a video, not a photograph"),
        (b"\0\0\0\x18ftypM4A \0\0\0\0M4A isom" + bytes(100), "sound, not a photograph"),
        (b"\x1f\x8b\x08\0" + bytes(100), "gzip-compressed data"),
        (b"PK\x03\x04" + bytes(100), "a ZIP archive"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"<?xml version='1.0'?>\n<svg/>", "an SVG drawing"),
        (b"<!DOCTYPE html><html>404</html>", "an HTML page"),
        (b"ada/1.jpg", r"the text 'ada/1.jpg', a file's name.*image=@ada/1.jpg"),
        (b"@C:\\ada 1.HEIC\r\n", "a file's name"),
        (b"/9j/4AAQSkZJRgABAQEASABIAAD", "base64 text of a JPEG"),
        (b'"/9j/4AAQSkZJRgABAQEASABIAAD"', "base64 text of a JPEG"),
        (b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYA" * 300, "base64 text of a PNG"),
        (b"AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWlj", "base64 text of a HEIC"),
        (b"data:image/jpeg;base64,/9j/4AAQSkZJRg", "a data URI"),
        (b"b'/9j/4AAQSkZJRgABAQEASABIAAD'", "base64 text of a JPEG"),
        ("Gr\u00fc\u00dfe".encode(), "text, where the bytes of an image belong"),
        ("ada".encode("utf-16"), "text in UTF-16"),
        (bytes(500), "zero bytes alone"),
        (b"\xff\x0a" + bytes(100), "JPEG XL"),
    ],
)
def test_what_is_no_image_is_refused_by_its_name(data, named):
    with pytest.raises(ImageUnreadable, match=named):
        read(data)


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 12, 20, 40, 100, 200])
def test_a_file_cut_anywhere_in_its_header_is_an_image_error(size):
    for data in (
        tiff_file(COLORS, 2),
        tiff_file(COLORS, 2, big=True),
        png_file(rows_of(COLORS), 4, bits=8, color=2),
        bmp_file([bytes(16)] * 2, 4, bits=32, masks=BGRA_MASKS),
        jpeg(),
    ):
        if size < len(data):
            with pytest.raises(ImageError):
                read(data[:size])
