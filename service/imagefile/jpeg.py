"""JPEG's markers (ITU-T T.81), followed along the first picture of a file.

A file may go on after its first picture: with more pictures (MPO), a video (Motion Photos), depth
maps. Only what lies before the first end mark counts.
"""

import re
from dataclasses import dataclass, field
from typing import Final

from service.imagefile.kinds import MAX_PARTS, unreadable

MAX_SCANS: Final = 100  # a camera writes a dozen, each may cost a pass over all pixels
END_MARK: Final = b"\xff\xd9"
_MARKER: Final = re.compile(rb"\xff[^\x00\xff]")
_BARE: Final = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a segment
_FRAMES: Final = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_LOSSLESS: Final = frozenset({0xC3, 0xC7, 0xCB, 0xCF})
_COEFFICIENTS: Final = 64


@dataclass
class JpegHeader:
    """The first picture. ended: its end mark is there. left: for each component the coefficients
    that no scan has brought to full precision yet."""

    scans: int = 0
    ended: bool = False
    left: dict[int, set[int]] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """True if every component has had all its scans, whole or not."""
        return bool(self.left) and not any(self.left.values())


def read_jpeg_header(data: bytes) -> JpegHeader:
    """Follow the first picture's markers. Raises ImageUnreadable for layouts that are not read."""
    header, at = JpegHeader(), 2
    for _ in range(MAX_PARTS):
        found = _MARKER.search(data, at)
        if found is None:
            return header
        marker, at = found[0][1], found.end()
        if marker == END_MARK[1]:
            header.ended = True
            return header
        if marker in _BARE:
            continue
        size = int.from_bytes(data[at : at + 2], "big")
        segment, at = data[at + 2 : at + size], at + max(size, 2)
        if at > len(data):
            return header
        if marker in _FRAMES:
            _read_frame(header, marker, segment)
        if marker == 0xDA:
            _read_scan(header, segment)
    raise unreadable(f"it has more than {MAX_PARTS} segments")


def _read_frame(header: JpegHeader, marker: int, segment: bytes) -> None:
    """A frame header (B.2.2): bits, height, width, components."""
    if len(segment) < 6:
        return
    if marker in _LOSSLESS:
        raise unreadable("lossless JPEG is not read")
    if segment[0] != 8:
        raise unreadable(f"its JPEG samples have {segment[0]} bits; 8 are read")
    if segment[5] not in (1, 3, 4):
        raise unreadable(f"its JPEG data have {segment[5]} components; 1, 3 and 4 are read")
    header.left = {component: set(range(_COEFFICIENTS)) for component in segment[6::3]}


def _read_scan(header: JpegHeader, segment: bytes) -> None:
    """A scan header (B.2.3): components, then which of their coefficients, to which bit."""
    header.scans += 1
    if header.scans > MAX_SCANS:
        raise unreadable(f"it has more than {MAX_SCANS} scans")
    if len(segment) < 4 or len(segment) != 4 + 2 * segment[0]:
        return
    first, last, bits = segment[-3:]
    if bits & 0x0F == 0:
        for component in segment[1:-3:2]:
            header.left.get(component, set()).difference_update(range(first, last + 1))
