"""TIFF's pages by their tags (TIFF 6.0, BigTIFF): which page is the picture and how it is laid out.

The layout is checked here because decoders take it on trust: layouts that they do not know come out
as noise, inverted or black.
"""

import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from service.errors import ImageUnreadable
from service.imagefile.kinds import MAX_PARTS, camera_raw, unreadable

SUBFILE, OLD_SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION = 254, 255, 256, 257, 258, 259
PHOTOMETRIC, STRIP_OFFSETS, SAMPLES, ROWS_PER_STRIP, STRIP_BYTES = 262, 273, 277, 278, 279
PLANAR, COLORS, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES = 284, 320, 322, 323, 324, 325
SUB_PAGES, INK_SET, DOT_RANGE, EXTRA, FORMAT, DNG_VERSION = 330, 332, 336, 338, 339, 50706
_READ: Final = frozenset(
    {SUBFILE, OLD_SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, STRIP_OFFSETS, SAMPLES}
    | {ROWS_PER_STRIP, STRIP_BYTES, PLANAR, COLORS, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS}
    | {TILE_BYTES, SUB_PAGES, INK_SET, DOT_RANGE, EXTRA, FORMAT, DNG_VERSION}
)
_CODES: Final = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # types of whole numbers
_MAX_TAGS: Final = 4096
_MAX_PAGES: Final = 64

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK = 0, 1, 2, 3, 5
_PHOTOMETRICS: Final = {
    WHITE_IS_ZERO: "grey (0 is white)",
    BLACK_IS_ZERO: "grey",
    RGB: "RGB",
    PALETTE: "palette",
    CMYK: "CMYK",
    6: "YCbCr",
    8: "CIELAB",
}
_FORMATS: Final = {1: "unsigned", 2: "signed", 3: "floating-point"}
_RAW_PHOTOMETRICS: Final = (32803, 34892)  # color filter array, linear raw
_RAW_COMPRESSIONS: Final = (32767, 34713, 65535)  # Sony's, Nikon's, Pentax's
# None, CCITT's, LZW, JPEG, deflate, PackBits, Zstandard, WebP. LZMA's dictionary has no bound.
_COMPRESSIONS: Final = (1, 2, 3, 4, 5, 6, 7, 8, 32771, 32773, 32946, 50000, 50001)
_LARGEST_TILE_PX: Final = 1 << 22  # of a picture that is smaller


@dataclass(frozen=True)
class TiffPage:
    """A page's tags, those that are read, as whole numbers.

    at: where its table begins; photometric_at: where the value of that tag is; order: < or >.
    """

    at: int
    order: str
    tags: dict[int, tuple[int, ...]]
    photometric_at: int

    def one(self, tag: int, default: int) -> int:
        return (self.tags.get(tag) or (default,))[0]

    @property
    def size(self) -> tuple[int, int]:
        return self.one(WIDTH, 0), self.one(HEIGHT, 0)

    @property
    def bits(self) -> int:
        return self.one(BITS, 1)

    @property
    def photometric(self) -> int:
        return self.one(PHOTOMETRIC, -1)

    @property
    def is_reduced(self) -> bool:
        """True if it is a smaller version of another picture."""
        return bool(self.one(SUBFILE, 0) & 1) or self.one(OLD_SUBFILE, 1) == 2

    @property
    def is_raw(self) -> bool:
        return (
            DNG_VERSION in self.tags
            or self.photometric in _RAW_PHOTOMETRICS
            or self.one(COMPRESSION, 1) in _RAW_COMPRESSIONS
        )

    @property
    def is_deep_grey(self) -> bool:
        """True if it is grey of 16 bits, of which the decoder inverts none."""
        return self.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO) and self.bits == 16

    @property
    def is_inverted(self) -> bool:
        """True if the decoded samples are to be inverted: deep grey, and inks that say so."""
        if self.is_deep_grey:
            return self.photometric == WHITE_IS_ZERO
        low, high, *_ = (*self.tags.get(DOT_RANGE, ()), 0, 0)
        return self.photometric == CMYK and low > high

    @property
    def layout(self) -> str:
        """Its pixels in words: `grey, 2 samples of 16 bits, unsigned`."""
        color = _PHOTOMETRICS.get(self.photometric, f"PhotometricInterpretation {self.photometric}")
        samples = self.one(SAMPLES, 1)
        bits = "/".join(map(str, sorted(set(self.tags.get(BITS, (1,))))))
        form = _FORMATS.get(self.one(FORMAT, 1), "undefined")
        planes = ", in planes" if self.one(PLANAR, 1) == 2 and samples > 1 else ""
        return f"{color}, {samples} sample{'s'[: samples != 1]} of {bits} bits, {form}{planes}"

    @property
    def end_bytes(self) -> int:
        """Where the last of its strips or tiles ends."""
        strips = zip(self.tags.get(STRIP_OFFSETS, ()), self.tags.get(STRIP_BYTES, ()), strict=False)
        tiles = zip(self.tags.get(TILE_OFFSETS, ()), self.tags.get(TILE_BYTES, ()), strict=False)
        return max((at + size for at, size in (*strips, *tiles)), default=0)


def read_tiff_page(data: bytes) -> TiffPage | None:
    """The page of the full picture; None if the file ends before its tables of tags do.

    Raises ImageUnreadable for camera raw, for thumbnails alone, and for layouts that are not read.
    """
    pages = list(_pages(data))
    if not pages:
        return None
    if any(page.is_raw for page in pages):
        raise camera_raw()
    full = [page for page in pages if not page.is_reduced]
    if not full:
        raise unreadable(
            "all its pages are thumbnails (NewSubfileType 1), as in camera raw; export a JPEG"
        )
    require_layout(full[0])
    return full[0]


def require_layout(page: TiffPage) -> None:
    """Raises ImageUnreadable for a layout that decoders take for another, or for a bomb."""
    width, height = page.size
    samples, planes = page.one(SAMPLES, 1), page.one(PLANAR, 1) == 2
    if PHOTOMETRIC not in page.tags:
        raise unreadable("its TIFF tags lack PhotometricInterpretation")
    if page.one(COMPRESSION, 1) not in _COMPRESSIONS:
        raise unreadable(f"its TIFF compression {page.one(COMPRESSION, 1)} is not read")
    tile = page.one(TILE_WIDTH, 0), page.one(TILE_HEIGHT, 0)
    most = min(2 * width * height, width * height + 16 * (width + height) + 256)
    if tile[0] * tile[1] > max(_LARGEST_TILE_PX, most):
        raise unreadable(f"its TIFF tiles of {tile[0]} x {tile[1]} pixels are beyond its picture")
    unsigned = set(page.tags.get(FORMAT, (1,))) == {1}
    of_one_kind = len(set(page.tags.get(BITS, (1,)))) == 1
    # Of planes the decoder knows those of RGB, YCbCr and CMYK; a fourth one must be named.
    known = page.photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, PALETTE) and not (
        page.photometric == RGB and samples > 3 and EXTRA not in page.tags
    )
    inks = page.photometric != CMYK or page.one(INK_SET, 1) == 1
    if not unsigned or not of_one_kind or not inks or (planes and samples > 1 and not known):
        raise unread_layout(page)


def unread_layout(page: TiffPage) -> ImageUnreadable:
    """The error of a layout that is not read."""
    return unreadable(f"its TIFF pixels are {page.layout}, which is not read; save 8-bit RGB")


def as_first_page(data: bytes, page: TiffPage) -> bytes:
    """The file with this page first, and with deep grey in the order that decoders know."""
    big = data[2:4] in (b"+\0", b"\0+")
    pointer = struct.pack(page.order + ("Q" if big else "I"), page.at)
    at = 8 if big else 4
    deep_white = page.is_deep_grey and page.photometric == WHITE_IS_ZERO
    if data[at : at + len(pointer)] == pointer and not deep_white:
        return data
    changed = bytearray(data)
    changed[at : at + len(pointer)] = pointer
    if deep_white:
        value = struct.pack(page.order + "H", BLACK_IS_ZERO)
        changed[page.photometric_at : page.photometric_at + 2] = value
    return bytes(changed)


def _pages(data: bytes) -> Iterator[TiffPage]:
    """The pages of the chain, then those below the first; up to where the file ends."""
    order = "<" if data.startswith(b"II") else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    if big and order == ">":
        raise unreadable("it is a big-endian BigTIFF, which is not read; save an ordinary TIFF")
    header = data[8:16] if big else data[4:8]
    if len(header) < (8 if big else 4):
        return
    (at,) = struct.unpack(order + ("Q" if big else "I"), header)
    seen: set[int] = set()
    below: list[int] = []
    while at and at not in seen and len(seen) < _MAX_PAGES:
        seen.add(at)
        try:
            found = _read_page(data, at, order, big)
        except ImageUnreadable:
            if len(seen) == 1:
                raise
            break  # what is wrong with other pages does not matter
        if found is None:
            break
        page, at = found
        below = below or list(page.tags.get(SUB_PAGES, ()))
        yield page
    for at in below[:_MAX_PAGES]:
        with suppress(ImageUnreadable):
            if (found := _read_page(data, at, order, big)) is not None:
                yield found[0]


def _read_page(data: bytes, at: int, order: str, big: bool) -> tuple[TiffPage, int] | None:
    """A page and where the next one begins (0: nowhere); None if the file ends before it does."""
    code, step = ("Q", 20) if big else ("I", 12)
    head = 8 if big else 2
    word = 8 if big else 4
    if at + head > len(data):
        return None
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
    if count > _MAX_TAGS:
        raise unreadable(f"it has {count} TIFF tags; the limit is {_MAX_TAGS}")
    end = at + head + count * step
    if end > len(data):
        return None
    tags: dict[int, tuple[int, ...]] = {}
    photometric_at = 0
    for entry in range(at + head, end, step):
        tag, kind, number = struct.unpack_from(f"{order}HH{code}", data, entry)
        if tag not in _READ:
            continue
        if tag in tags:
            raise unreadable(f"its TIFF tag {tag} is given twice")
        if kind not in _CODES or number > MAX_PARTS:
            raise unreadable(f"its TIFF tag {tag} has {number} values of type {kind}")
        layout = f"{order}{number}{_CODES[kind]}"
        place = entry + step - word
        if struct.calcsize(layout) > word:
            (place,) = struct.unpack_from(order + code, data, place)
        if place + struct.calcsize(layout) > len(data):
            return None
        tags[tag] = struct.unpack_from(layout, data, place)
        if tag == PHOTOMETRIC:
            photometric_at = place
    following = struct.unpack_from(order + code, data, end) if end + word <= len(data) else (0,)
    return TiffPage(at, order, tags, photometric_at), following[0]
