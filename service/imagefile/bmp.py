"""BMP's header: layouts that the decoder does not read, or reads as another."""

from typing import Final

from service.imagefile.kinds import unreadable

_COMPRESSIONS: Final = {1: "RLE8", 2: "RLE4", 4: "JPEG", 5: "PNG"}
_READ: Final = (1, 4, 8, 16, 24, 32)
_OLD_HEADER_BYTES: Final = 12


def read_bmp(data: bytes) -> bytes:
    """The file as the decoder reads it rightly; one whose header is cut off as it is.

    Raises ImageUnreadable for a layout that is not read.
    """
    size = int.from_bytes(data[14:18], "little")
    if len(data) < 54 or size == _OLD_HEADER_BYTES:
        return data
    bits = int.from_bytes(data[28:30], "little")
    compression = int.from_bytes(data[30:34], "little")
    if bits not in _READ or compression > 3:
        kind = _COMPRESSIONS.get(compression, f"compression {compression}")
        raise unreadable(f"its BMP pixels have {bits} bits, {kind if compression else 'raw'}")
    colors = int.from_bytes(data[46:50], "little") or 1 << bits
    # Pillow drops a grey palette and takes the pixels for ones of 1 bit, of up to two colors,
    # or 8. One level of blue in black keeps it from that.
    if (bits == 4 or (bits == 8 and colors <= 2)) and _is_grey(data, 14 + size, colors):
        changed = bytearray(data)
        changed[14 + size] = 1
        return bytes(changed)
    return data


def _is_grey(data: bytes, at: int, colors: int) -> bool:
    levels = (0, 255) if colors == 2 else range(colors)
    return all(
        data[at + 4 * i : at + 4 * i + 3] == bytes((level,) * 3) for i, level in enumerate(levels)
    )
