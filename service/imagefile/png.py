"""PNG's chunks (ISO/IEC 15948): those that make the picture, without the others.

As in browsers, what is wrong with a chunk that the pixels do not need (text, profiles, times, of
whatever size and with whatever checksum) is no reason to refuse the picture.
"""

import zlib
from collections.abc import Iterator
from typing import Final

from service.imagefile.kinds import MAX_PARTS, unreadable

_BITS: Final = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_KEPT: Final = (b"IHDR", b"PLTE", b"tRNS", b"eXIf")
_SIGNATURE_BYTES: Final = 8
_LARGEST_KEPT: Final = 1 << 20  # bytes of one of them


def read_png(data: bytes) -> bytes | None:
    """The chunks that make the picture, as a PNG file; None without a whole header.

    Raises ImageUnreadable for what is broken in them, and for layouts that are not read.
    """
    chunks: dict[bytes, bytes] = {}
    pixels: list[memoryview] = []
    for name, content, checksum in _chunks(data):
        if name == b"IDAT":
            pixels.append(content)
        elif name in _KEPT and len(content) <= _LARGEST_KEPT:
            if zlib.crc32(content, zlib.crc32(name)).to_bytes(4, "big") == checksum:
                chunks.setdefault(name, bytes(content))
            elif name[:1].isupper() and len(checksum) == 4:
                raise unreadable(f"the checksum of its {name.decode()} chunk is wrong")
        elif name == b"CgBI":
            raise unreadable("it is a PNG in Apple's own form (CgBI); export an ordinary one")
        elif name[:1].isupper() and name != b"IEND":
            raise unreadable(f"its PNG chunk {name.decode()} is unknown and critical")
    header = chunks.pop(b"IHDR", b"")
    if len(header) != 13:
        return None
    bits, color = header[8:10]
    if bits not in _BITS.get(color, ()):
        raise unreadable(f"its PNG pixels are of color type {color} with {bits} bits")
    if b"tRNS" in chunks:
        chunks.update(_transparency(chunks.pop(b"tRNS"), color, bits))
    parts = [data[:_SIGNATURE_BYTES], *_chunk(b"IHDR", header)]
    for name, kept in chunks.items():
        parts += _chunk(name, kept)
    if pixels:
        parts += _chunk(b"IDAT", b"".join(pixels))
    return b"".join([*parts, *_chunk(b"IEND", b"")])


def is_png_cut(data: bytes) -> bool:
    """True if the file ends before its end chunk does."""
    at = _SIGNATURE_BYTES
    for name, content, _ in _chunks(data):
        if name == b"IEND":
            return False
        at += 12 + len(content)
    return len(data) < at + 8  # otherwise what follows is no chunk


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview, bytes]]:
    """Name, content and checksum of each chunk, to the end chunk or where no chunk follows."""
    view, at = memoryview(data), _SIGNATURE_BYTES
    for _ in range(MAX_PARTS):
        name, end = data[at + 4 : at + 8], at + 8 + int.from_bytes(data[at : at + 4], "big")
        if len(name) < 4 or not name.isalpha():
            return
        yield name, view[at + 8 : end], data[end : end + 4]
        if name == b"IEND":
            return
        at = end + 4
    raise unreadable(f"it has more than {MAX_PARTS} chunks")


def _transparency(clear: bytes, color: int, bits: int) -> dict[bytes, bytes]:
    """The chunk of what is transparent as Pillow needs it; without it if it does not fit.

    Pillow widens grey of 2 and 4 bits to 8, but not the grey that is transparent.
    """
    if len(clear) not in {0: (2,), 2: (6,), 3: range(1, 257)}.get(color, ()):
        return {}
    if color == 2 and bits == 16:
        raise unreadable("a PNG of 16-bit RGB with a transparent color (tRNS) is not read")
    if color == 0 and bits < 16:
        level = int.from_bytes(clear, "big") & ((1 << bits) - 1)
        widened = level * 255 // ((1 << bits) - 1) if bits > 1 else level
        clear = widened.to_bytes(2, "big")
    if color == 2:
        clear = bytes((0, clear[1], 0, clear[3], 0, clear[5]))
    return {b"tRNS": clear}


def _chunk(name: bytes, content: bytes) -> list[bytes]:
    checksum = zlib.crc32(content, zlib.crc32(name)).to_bytes(4, "big")
    return [len(content).to_bytes(4, "big"), name, content, checksum]
