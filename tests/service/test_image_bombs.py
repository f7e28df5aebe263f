"""Small files that ask for much: refused by what their headers say, before a pixel is decoded.

Each is read for real in a process of its own that may take little more memory than it has.
"""

import functools
import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image
from pillow_heif import register_heif_opener

from service.errors import ImageUnreadable
from service.imagefile import read_photograph
from tests.imagebytes import tiff_file

SIDE = 4096  # of what is coded; 64 is declared
MAX_PIXELS = 1_000_000
MORE_MIB = 48  # than after a small picture of the same kind
CHILD = """
import io, resource, struct, sys
from service.errors import ImageError
from service.imagefile import read_photograph
size, more = int(sys.argv[1]), int(sys.argv[2])
small, data = sys.stdin.buffer.read(size), sys.stdin.buffer.read()
def read(data):
    try:
        pixels = read_photograph(data, max_bytes=1 << 25, max_pixels=1_000_000).pixels_rgb
        return f"read {pixels.shape}"
    except ImageError as error:
        return str(error)
assert read(small).startswith("read"), read(small)
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + (more << 20),) * 2)
print(read(data))
"""
register_heif_opener()


def outcome(small, data):
    """What a process with little memory says of the file, after it has read a small one."""
    command = [sys.executable, "-c", CHILD, str(len(small)), str(MORE_MIB)]
    done = subprocess.run(command, input=small + data, capture_output=True, check=True)
    return done.stdout.decode()


def read(data):
    return read_photograph(data, max_bytes=1 << 25, max_pixels=MAX_PIXELS).pixels_rgb


@functools.cache
def flat(kind, side, **options):
    file = io.BytesIO()
    Image.new("RGB", (side, side), (90, 110, 130)).save(file, kind, quality=50, **options)
    return file.getvalue()


def declared(data, side=SIDE):
    """The file with 64 x 64 as the size that it declares."""
    sizes = struct.pack(">II", side, side)
    assert sizes in data
    return data.replace(sizes, struct.pack(">II", 64, 64))


@pytest.mark.parametrize(("kind", "codec"), [("AVIF", "AV1"), ("HEIF", "HEVC")])
def test_a_picture_coded_larger_than_it_is_declared_is_refused(kind, codec):
    options = {"speed": 10} if kind == "AVIF" else {}
    data = declared(flat(kind, SIDE, **options))
    assert len(data) < 30_000
    told = outcome(flat(kind, 64), data)
    assert f"its {codec} data are coded in {SIDE} x {SIDE} pixels" in told


def test_a_sequence_coded_larger_than_it_is_declared_is_refused():
    more = Image.new("RGB", (SIDE, SIDE))
    data = flat.__wrapped__("AVIF", SIDE, speed=10, save_all=True, append_images=[more])
    told = outcome(flat("AVIF", 64), declared(data))
    assert f"its AV1 data are coded in {SIDE} x {SIDE} pixels" in told


def test_a_frame_with_a_size_of_its_own_is_refused():
    frames = [Image.new("RGB", (64, 64), color) for color in ("red", "blue")]
    file = io.BytesIO()
    frames[0].save(file, "AVIF", save_all=True, append_images=frames[1:])
    data = bytearray(file.getvalue())
    assert read(bytes(data)).shape == (64, 64, 3)
    # A key frame that is shown: 0 00 1, then its cdf bit, screen tools, whole vectors, own size.
    at = data.index(b"mdat") + 4
    while data[at] >> 3 & 15 != 6:  # units of a frame, with a size of one or two bytes
        at += 2 + data[at + 1]
    at += 3 if data[at + 1] & 128 else 2
    assert data[at] >> 4 == 1
    has_screen_tools = data[at] >> 2 & 1
    data[at] |= 1 if has_screen_tools else 2
    with pytest.raises(ImageUnreadable, match="another size than their sequence"):
        read(bytes(data))


def box(name, *contents):
    content = b"".join(contents)
    return struct.pack(">I", 8 + len(content)) + name + content


def item_data(avif):
    """The coded data of an AVIF's one item, and its properties."""
    at = avif.index(b"av1C") - 4
    config = avif[at : at + int.from_bytes(avif[at : at + 4], "big")]
    pixi = box(b"pixi", bytes(4), b"\3\x08\x08\x08")
    at = avif.index(b"mdat")
    return avif[at + 4 :], config + pixi


def grid_file(rows, columns, tile_side, items=None):
    """An AVIF that shows one tile again and again. items: as how many of them it is told."""
    coded, properties = item_data(flat("AVIF", tile_side))
    width, height = columns * tile_side, rows * tile_side
    grid = struct.pack(">BBBBII", 0, 1, rows - 1, columns - 1, width, height)
    count = rows * columns
    tiles = range(2, 2 + (items or count))
    shown = (list(tiles) * count)[:count]

    def meta(at):
        kinds = [(1, b"grid"), *((tile, b"av01") for tile in tiles)]
        entries = [
            box(b"infe", b"\2\0\0\0", struct.pack(">HH", n, 0), kind, b"\0") for n, kind in kinds
        ]
        places = [(1, 1, 0, len(grid)), *((tile, 0, at, len(coded)) for tile in tiles)]
        ispe = [
            box(b"ispe", struct.pack(">III", 0, *size))
            for size in ((width, height), (tile_side,) * 2)
        ]
        owned = [(1, (1, 4)), *((tile, (2, 3, 4)) for tile in tiles)]
        return box(
            b"meta",
            bytes(4),
            box(b"hdlr", bytes(8), b"pict", bytes(13)),
            box(b"pitm", bytes(4), struct.pack(">H", 1)),
            box(b"iinf", bytes(4), struct.pack(">H", 1 + len(tiles)), *entries),
            box(b"iref", bytes(4), box(b"dimg", struct.pack(f">HH{count}H", 1, count, *shown))),
            box(
                b"iprp",
                box(b"ipco", *ispe, properties),
                box(
                    b"ipma",
                    bytes(4),
                    struct.pack(">I", 1 + len(tiles)),
                    *(struct.pack(">HB", n, len(own)) + bytes(own) for n, own in owned),
                ),
            ),
            box(b"idat", grid),
            box(
                b"iloc",
                b"\1\0\0\0\x44\0",
                struct.pack(">H", 1 + len(tiles)),
                *(struct.pack(">HHHHII", n, how, 0, 1, at, size) for n, how, at, size in places),
            ),
        )

    head = box(b"ftyp", b"avif\0\0\0\0avifmif1miaf")
    at = len(head) + len(meta(0)) + 8
    return head + meta(at) + box(b"mdat", coded)


def test_a_grid_is_read_and_one_of_too_many_tiles_is_refused():
    assert read(grid_file(1, 2, 64)).shape == (64, 128, 3)
    assert "its parts make 16777216 pixels" in outcome(flat("AVIF", 64), grid_file(64, 64, 64))
    assert "its parts make 4194304 pixels" in outcome(flat("AVIF", 64), grid_file(16, 16, 128, 1))


def tiled(side, tile, compression=8):
    tags = {
        259: (3, (compression,)),
        322: (4, (tile,)),
        323: (4, (tile,)),
        324: (4, (0,)),
        325: (4, (0,)),
        256: (4, (side,)),
        257: (4, (side,)),
    }
    pixels = zlib.compress(bytes(3 * tile * tile) if tile < 1000 else bytes(3_000_000))
    data = tiff_file(np.zeros((1, 1, 3), np.uint8), 2, tags=tags)
    at = len(data)
    for tag, value in ((324, at), (325, len(pixels))):
        entry = data.index(struct.pack("<HHI", tag, 4, 1))
        data = data[: entry + 8] + struct.pack("<I", value) + data[entry + 12 :]
    entry = data.index(struct.pack("<HHI", 273, 4, 1))  # strips are named by another number
    for tag in (273, 278, 279):
        entry = data.index(struct.pack("<HHI", tag, 4, 1))
        data = data[:entry] + struct.pack("<H", 60_000 + tag) + data[entry + 2 :]
    return data + pixels


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_tiles_far_larger_than_their_picture_are_refused():
    assert read(tiled(64, 64)).shape == (64, 64, 3)
    assert "tiles of 46000 x 46000 pixels are beyond" in outcome(tiled(64, 64), tiled(64, 46_000))


def test_tiles_that_reach_a_little_beyond_their_picture_are_read():
    assert read(tiled(64, 256)).shape == (64, 64, 3)


def strips(count):
    rows = np.zeros((count, 1), np.uint8)
    tags = {278: (4, (1,)), 273: (4, (8,) * count), 279: (4, (1,) * count)}
    return tiff_file(rows, 1, tags=tags)


def test_very_many_strips_are_refused():
    told = outcome(strips(100), strips(900_000))
    assert "tag 273 has 900000 values" in told


def test_a_webp_s_canvas_is_bounded_before_it_is_made():
    frame = flat("WEBP", 64)[12:]
    size = struct.pack("<I", 16_383 - 1)[:3]
    animation = b"ANMF" + struct.pack("<I", 16 + len(frame)) + bytes(6) + b"\x3f\0\0" * 2 + bytes(4)
    body = b"VP8X" + struct.pack("<II", 10, 2) + size * 2 + b"ANIM" + struct.pack("<IIH", 6, 0, 0)
    body = b"WEBP" + body + animation + frame
    told = outcome(flat("WEBP", 64), b"RIFF" + struct.pack("<I", len(body)) + body)
    assert "declares 16383 x 16383" in told


@pytest.mark.parametrize("side", [64, 65, 500, 1000])
@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_pictures_as_encoders_write_them_are_within_the_bounds(kind, side):
    image = Image.new("RGBA", (side, side), (90, 110, 130, 128))
    file = io.BytesIO()
    image.save(file, kind, quality=50)
    assert read(file.getvalue()).shape == (side, side, 3)
