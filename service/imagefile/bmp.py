"""BMP's header: layouts that the decoder does not read, or reads as another."""

from typing import Final

from service.imagefile.kinds import unreadable

_COMPRESSIONS: Final = {1: "RLE8", 2: "RLE4", 4: "JPEG", 5: "PNG"}
_READ: Final = (1, 4, 8, 16, 24, 32)
_OLD_HEADER_BYTES: Final = 12
_RUN_LENGTHS: Final = (1, 2)
# Pillow decodes run lengths in Python, a code and sometimes a pixel at a time: so much takes it
# less than two seconds of a core, where a file of 20 MB took half a minute.
MAX_CODED_BYTES: Final = 1 << 20
MAX_CODED_PIXELS: Final = 4_000_000


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
    if compression in _RUN_LENGTHS:
        _keep_run_lengths(data, _COMPRESSIONS[compression])
    colors = int.from_bytes(data[46:50], "little") or 1 << bits
    # Pillow drops a grey palette and takes the pixels for ones of 1 bit, of up to two colors,
    # or 8. One level of blue in black keeps it from that.
    if (bits == 4 or (bits == 8 and colors <= 2)) and _is_grey(data, 14 + size, colors):
        changed = bytearray(data)
        changed[14 + size] = 1
        return bytes(changed)
    return data


def _keep_run_lengths(data: bytes, kind: str) -> None:
    """Raises ImageUnreadable for a picture in run lengths that takes long to decode."""
    width = abs(int.from_bytes(data[18:22], "little", signed=True))
    height = abs(int.from_bytes(data[22:26], "little", signed=True))
    coded = max(0, len(data) - int.from_bytes(data[10:14], "little"))
    if coded > MAX_CODED_BYTES or width * height > MAX_CODED_PIXELS:
        raise unreadable(
            f"its BMP pixels are in run lengths ({kind}), {width} x {height} in {coded} bytes; "
            f"those are read up to {MAX_CODED_PIXELS} pixels and {MAX_CODED_BYTES} bytes: save it "
            "as PNG"
        )


def _is_grey(data: bytes, at: int, colors: int) -> bool:
    levels = (0, 255) if colors == 2 else range(colors)
    return all(
        data[at + 4 * i : at + 4 * i + 3] == bytes((level,) * 3) for i, level in enumerate(levels)
    )
