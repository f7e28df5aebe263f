"""The size that an image file declares, by its first bytes: for planning, not a check."""

from typing import Final

from service.imagefile.webp import read_webp_size

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_JPEG: Final = b"\xff\xd8\xff"
_FRAMES: Final = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_MAX_SEGMENTS: Final = 64  # before a JPEG's frame; cameras write a dozen


def declared_pixels(data: bytes) -> int | None:
    """Pixels of a PNG, JPEG or WebP file, None of others and of what is not found quickly.

    Decoders may find another size, or none: `read_photograph` checks.
    """
    size: tuple[int, int] | None = None
    if data.startswith(_PNG):
        size = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    elif data.startswith(_JPEG):
        size = _jpeg_size(data)
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        size = read_webp_size(data)
    return None if size is None else size[0] * size[1]


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    at = 2
    for _ in range(_MAX_SEGMENTS):
        head = data[at : at + 9]
        if len(head) < 9 or head[0] != 0xFF:
            return None
        if head[1] in _FRAMES:
            return int.from_bytes(head[7:9], "big"), int.from_bytes(head[5:7], "big")
        at += 2 + max(2, int.from_bytes(head[2:4], "big"))
    return None
