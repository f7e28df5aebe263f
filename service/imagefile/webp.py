"""The size of a WebP picture by its first chunk (RFC 9649), before a decoder makes its canvas."""


def read_webp_size(data: bytes) -> tuple[int, int] | None:
    """Width and height; None if the header is cut off, or of no known kind."""
    kind = data[12:16]
    if len(data) < 30:
        return None
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        sides = data[26:28], data[28:30]
        width, height = (int.from_bytes(side, "little") & 0x3FFF for side in sides)
        return width, height
    return None
