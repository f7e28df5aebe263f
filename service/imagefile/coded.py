"""The size of a coded picture by the heads of its data: AV1's and HEVC's.

AV1: sequence header and the start of frame headers (AV1 Bitstream Specification, 5.5 and 5.9).
HEVC: sequence parameter set (ITU-T H.265, 7.3.2.2).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from service.imagefile.kinds import MAX_PARTS, unreadable

_SEQUENCE_HEADER: Final = 1  # of AV1's units
_FRAME_HEADERS: Final = (3, 6, 7)
_KEY_FRAME, _SWITCH_FRAME = 0, 3
_SELECT: Final = 2  # each frame says it for itself
_PARAMETER_SET: Final = 33  # of HEVC's units


@dataclass
class Reader:
    """Big-endian numbers, one after another. Raises ValueError behind the end."""

    data: bytes
    at: int = 0

    def number(self, size_bytes: int) -> int:
        return int.from_bytes(self.take(size_bytes), "big")

    def take(self, size_bytes: int) -> bytes:
        taken = self.data[self.at : self.at + size_bytes]
        if len(taken) < size_bytes:
            raise ValueError("a box ends early")
        self.at += size_bytes
        return taken


@dataclass
class _Bits:
    """The bits of a header. Raises ValueError behind the end."""

    data: bytes
    at: int = 0

    def number(self, count: int) -> int:
        end = self.at + count
        if end > 8 * len(self.data):
            raise ValueError("a coded header ends early")
        piece = int.from_bytes(self.data[self.at // 8 : (end + 7) // 8], "big")
        self.at = end
        return piece >> (-end % 8) & ((1 << count) - 1)

    def exponential(self) -> int:
        """An Exp-Golomb code, which AV1 calls uvlc."""
        zeros = 0
        while not self.number(1):
            zeros += 1
        return (1 << zeros) - 1 + self.number(zeros)


@dataclass
class _Sequence:
    """Facts of an AV1 sequence header about its frames. time_bits: of a frame's time of showing."""

    size: tuple[int, int] = (0, 0)
    is_reduced: bool = False
    time_bits: int = 0
    id_bits: int = 0
    screen_tools: int = _SELECT
    whole_vectors: int = _SELECT


def av1_sizes(coded: bytes) -> Iterator[tuple[int, int]]:
    """The size of the frames of each sequence header.

    Raises ImageUnreadable for a frame that has another size than its sequence, ValueError for
    headers that end early.
    """
    at = 0
    sequence = _Sequence()
    for _ in range(MAX_PARTS):
        if at >= len(coded):
            return
        head = coded[at]
        at += 2 if head & 4 else 1
        size = len(coded) - at
        if head & 2:
            size, at = _leb128(coded, at)
        kind, bits = head >> 3 & 15, _Bits(coded[at : at + min(size, 4096)])
        if kind == _SEQUENCE_HEADER:
            sequence = _read_sequence(bits)
            yield sequence.size
        if kind in _FRAME_HEADERS and _has_own_size(bits, sequence):
            raise unreadable("its AV1 frames have another size than their sequence")
        at += size
    raise unreadable(f"its AV1 data have more than {MAX_PARTS} units")


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for i, byte in enumerate(data[at : at + 8]):
        value |= (byte & 127) << (7 * i)
        if byte < 128:
            return value, at + i + 1
    raise ValueError("a unit's size ends early")


def _read_sequence(bits: _Bits) -> _Sequence:
    sequence = _Sequence()
    bits.number(4)
    sequence.is_reduced = bool(bits.number(1))
    if sequence.is_reduced:
        bits.number(5)
    else:
        _read_operating_points(bits, sequence)
    width_bits, height_bits = bits.number(4) + 1, bits.number(4) + 1
    sequence.size = bits.number(width_bits) + 1, bits.number(height_bits) + 1
    if sequence.is_reduced:
        return sequence
    if bits.number(1):
        sequence.id_bits = bits.number(4) + bits.number(3) + 3
    bits.number(3 + 4)
    if ordered := bits.number(1):
        bits.number(2)
    sequence.screen_tools = _SELECT if bits.number(1) else bits.number(1)
    if sequence.screen_tools:
        sequence.whole_vectors = _SELECT if bits.number(1) else bits.number(1)
    bits.number(3 * ordered)
    return sequence


def _read_operating_points(bits: _Bits, sequence: _Sequence) -> None:
    delay_bits = 0
    if bits.number(1):  # timing
        bits.number(64)
        if even := bits.number(1):
            bits.exponential()
        if bits.number(1):  # a decoder model
            delay_bits = bits.number(5) + 1
            bits.number(32 + 5)
            time_bits = bits.number(5) + 1
            sequence.time_bits = 0 if even else time_bits
    shows_delay = bits.number(1)
    for _ in range(bits.number(5) + 1):
        bits.number(12)
        if bits.number(5) > 7:
            bits.number(1)
        if delay_bits and bits.number(1):
            bits.number(2 * delay_bits + 1)
        if shows_delay and bits.number(1):
            bits.number(4)


def _has_own_size(bits: _Bits, sequence: _Sequence) -> bool:
    """True if a frame header overrides the size of its sequence."""
    if sequence.is_reduced or bits.number(1):  # the latter shows a frame that was decoded before
        return False
    kind, is_shown = bits.number(2), bits.number(1)
    if is_shown:
        bits.number(sequence.time_bits)
    else:
        bits.number(1)
    if kind != _SWITCH_FRAME and not (kind == _KEY_FRAME and is_shown):
        bits.number(1)
    bits.number(1)
    screen_tools = bits.number(1) if sequence.screen_tools == _SELECT else sequence.screen_tools
    if screen_tools and sequence.whole_vectors == _SELECT:
        bits.number(1)
    bits.number(sequence.id_bits)
    return kind == _SWITCH_FRAME or bool(bits.number(1))


def hevc_sizes(config: bytes, coded: bytes) -> Iterator[tuple[int, int]]:
    """The size of each parameter set, of the decoder's configuration and among the data."""
    content = Reader(config, 21)
    length = (content.number(1) & 3) + 1
    for _ in range(content.number(1)):
        content.take(1)
        for _ in range(content.number(2)):
            yield from _hevc_size(content.take(content.number(2)))
    at = 0
    for _ in range(MAX_PARTS):
        if at + length > len(coded):
            return
        size = int.from_bytes(coded[at : at + length], "big")
        yield from _hevc_size(coded[at + length : at + length + min(size, 4096)])
        at += length + size
    raise unreadable(f"its HEVC data have more than {MAX_PARTS} units")


def _hevc_size(unit: bytes) -> Iterator[tuple[int, int]]:
    if not unit or unit[0] >> 1 & 63 != _PARAMETER_SET:
        return
    bits = _Bits(unit[2:].replace(b"\0\0\3", b"\0\0"))
    bits.number(4)
    layers = bits.number(3)
    bits.number(1 + 96)
    present = [(bits.number(1), bits.number(1)) for _ in range(layers)]
    bits.number(2 * (8 - layers) if layers else 0)
    for profile, level in present:
        bits.number(88 * profile + 8 * level)
    bits.exponential()
    if bits.exponential() == 3:
        bits.number(1)
    yield bits.exponential(), bits.exponential()
