"""Image files byte by byte, for layouts that no encoder at hand writes."""

import struct
import zlib
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_TIFF_CODES: Final = {1: "B", 3: "H", 4: "I", 16: "Q"}


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk with its length and its checksum."""
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def png_file(
    rows: list[bytes], width: int, *, bits: int, color: int, chunks: bytes = b"", end: bytes = b""
) -> bytes:
    """A PNG of rows of packed samples. chunks: before the pixels; end: instead of its end chunk."""
    header = struct.pack(">IIBBBBB", width, len(rows), bits, color, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    body = png_chunk(b"IHDR", header) + chunks + png_chunk(b"IDAT", pixels)
    return PNG_SIGNATURE + body + (end or png_chunk(b"IEND", b""))


def tiff_file(
    samples: NDArray[Any],
    photometric: int | None,
    *,
    order: str = "<",
    in_planes: bool = False,
    tags: dict[int, tuple[int, tuple[int, ...]]] | None = None,
    big: bool = False,
    at: int = 0,
    following: bool = False,
) -> bytes:
    """A TIFF of one page, uncompressed, in one strip per plane.

    samples: (height, width) or (height, width, samples), of 8, 16 or 32 bits. tags: type and values
    by number, beside or instead of the usual ones. at: the bytes that will come before it, without
    a header then; following: another page comes right after it.
    """
    pixels = np.atleast_3d(samples)
    pixels = pixels.astype(pixels.dtype.newbyteorder(order))
    height, width, count = pixels.shape
    planes = [pixels[..., i] for i in range(count)] if in_planes else [pixels]
    strips = [plane.tobytes() for plane in planes]
    entries: dict[int, tuple[int, tuple[int, ...]]] = {
        256: (4, (width,)),
        257: (4, (height,)),
        258: (3, (pixels.dtype.itemsize * 8,) * count),
        259: (3, (1,)),
        273: (4, (0,) * len(strips)),
        277: (3, (count,)),
        278: (4, (height,)),
        279: (4, tuple(map(len, strips))),
        284: (3, (2 if in_planes else 1,)),
        **({} if photometric is None else {262: (3, (photometric,))}),
        **(tags or {}),
    }
    offset, word, step = ("Q", 8, 20) if big else ("I", 4, 12)
    header = b"" if at else _tiff_header(order, big)
    table = at + len(header)
    behind = table + (8 if big else 2) + step * len(entries) + word
    far = {
        tag: struct.pack(f"{order}{len(values)}{_TIFF_CODES[kind]}", *values)
        for tag, (kind, values) in entries.items()
    }
    pixels_at = behind + sum(len(raw) for raw in far.values() if len(raw) > word)
    places = np.cumsum([pixels_at, *map(len, strips)]).tolist()
    if 273 not in (tags or {}) and 273 in entries:
        entries[273] = (4, tuple(places[:-1]))
        far[273] = struct.pack(f"{order}{len(strips)}I", *places[:-1])
    parts = [header, struct.pack(order + ("Q" if big else "H"), len(entries))]
    values_at, values_raw = behind, b""
    for tag in sorted(entries):
        kind, values = entries[tag]
        raw = far[tag]
        parts.append(struct.pack(f"{order}HH{offset}", tag, kind, len(values)))
        if len(raw) <= word:
            parts.append(raw.ljust(word, b"\0"))
        else:
            parts.append(struct.pack(order + offset, values_at + len(values_raw)))
            values_raw += raw
    parts.append(struct.pack(order + offset, places[-1] if following else 0))
    return b"".join([*parts, values_raw, *strips])


def _tiff_header(order: str, big: bool) -> bytes:
    mark = b"II" if order == "<" else b"MM"
    if big:
        return mark + struct.pack(order + "HHHQ", 43, 8, 0, 16)
    return mark + struct.pack(order + "HI", 42, 8)


def bmp_file(
    rows: list[bytes],
    width: int,
    *,
    bits: int,
    palette: list[tuple[int, int, int]] | None = None,
    masks: tuple[int, ...] = (),
    compression: int | None = None,
) -> bytes:
    """A BMP of rows of packed samples, top row first. masks: of red, green, blue and alpha."""
    step = (width * bits + 31) // 32 * 4
    pixels = b"".join(row.ljust(step, b"\0") for row in reversed(rows))
    colors = b"".join(bytes((b, g, r, 0)) for r, g, b in palette or [])
    size = 108 if masks else 40
    at = 14 + size + len(colors)
    if compression is None:
        compression = 3 if masks else 0
    header = struct.pack(
        "<IiiHHIIiiII", size, width, len(rows), 1, bits, compression, 0, 0, 0, 0, 0
    )
    header = header[:32] + struct.pack("<II", len(palette or []), 0)
    header += struct.pack(f"<{len(masks)}I", *masks)
    file = b"BM" + struct.pack("<IHHI", at + len(pixels), 0, 0, at)
    return file + header.ljust(size, b"\0") + colors + pixels
