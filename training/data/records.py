"""RecordIO, the container of MXNet's images, without MXNet.

A file is a row of records (dmlc-core's recordio.h); each is one part, or several where the payload
holds the magic number at a place divisible by 4: uint32 magic, uint32 with the part's flag in the
upper 3 bits and its length in the others, the bytes, zeros up to a multiple of 4. Joined, the
parts have the magic between them. The payload (MXNet's recordio.py) is a header of flag, label
(float32), id and id2; with flag > 0 as many float32 labels follow, of which the first counts; then
an image file. All numbers are little-endian.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

MAGIC: Final = 0xCED7230A
MAGIC_BYTES: Final = MAGIC.to_bytes(4, "little")
OLD_MAGIC: Final = 0x3ED7230A  # of dmlc-core's first revision, with 30 bits of length
LENGTH_BITS: Final = 29
WHOLE, FIRST, MIDDLE, LAST = range(4)
_PART: Final = struct.Struct("<II")
_HEADER: Final = struct.Struct("<IfQQ")
_HEAD_WORDS: Final = 9  # a part's two, the header's six, the first label
_AT_ONCE: Final = 1 << 16  # records whose heads are looked at together


@dataclass(frozen=True)
class Record:
    """A record, taken apart. labels: those behind the header; image: empty where there is none."""

    label: float
    labels: tuple[float, ...]
    id: int
    image: bytes


@dataclass(frozen=True)
class Heads:
    """What records say before their images: the label that counts (float32), the id, and whether
    no image follows."""

    labels_R: NDArray[np.float32]
    ids_R: NDArray[np.uint64]
    empty_R: NDArray[np.bool_]


class Records:
    """The records of a file by the byte at which they begin; mapped into memory, read-only.

    May be used from threads, after a fork and in spawned processes. What is wrong with the file is
    a ValueError with its name and the byte.
    """

    def __init__(self, path: Path) -> None:
        """Raises FileNotFoundError, and ValueError for an empty file."""
        self.path, self.size_bytes = path, path.stat().st_size
        if self.size_bytes == 0:
            raise ValueError(f"{path} is empty")
        self._bytes = np.memmap(path, np.uint8, mode="r").view(np.ndarray)

    def __reduce__(self) -> tuple[Any, ...]:
        return Records, (self.path,)

    def offsets(self) -> NDArray[np.int64]:
        """Where each record begins, from going through the file."""
        found, at = [], 0
        while at < self.size_bytes:
            found.append(at)
            _, at = self._parts(at)
        return np.array(found, np.int64)

    def read(self, at: int) -> Record:
        """The record that begins at a byte."""
        payload = self._payload(at)
        if len(payload) < _HEADER.size:
            raise ValueError(f"{self.path}: the record at byte {at} is too short for its header")
        count, label, key, _ = _HEADER.unpack_from(payload)
        image_at = _HEADER.size + 4 * count
        if len(payload) < image_at:
            raise ValueError(
                f"{self.path}: the record at byte {at} announces {count} labels, but has "
                f"{len(payload)} bytes"
            )
        labels = struct.unpack_from(f"<{count}f", payload, _HEADER.size)
        return Record(labels[0] if labels else label, labels, key, payload[image_at:])

    def heads(self, offsets_R: NDArray[np.int64]) -> Heads:
        """The heads of the records at those bytes; each record is seen to be there to its end."""
        parts = [
            self._heads(offsets_R[i : i + _AT_ONCE]) for i in range(0, len(offsets_R), _AT_ONCE)
        ]
        columns = (np.concatenate(column) for column in zip(*parts, strict=True))
        return Heads(*columns)

    def _heads(self, offsets_R: NDArray[np.int64]) -> tuple[NDArray[Any], ...]:
        """Records of one part are looked at all together, the few others one by one."""
        window = np.arange(4 * _HEAD_WORDS)
        seen = self._bytes[np.clip(offsets_R[:, None] + window, 0, self.size_bytes - 1)]
        words, numbers = seen.view("<u4").astype(np.int64), seen.view("<f4")
        flags, lengths = words[:, 1] >> LENGTH_BITS, words[:, 1] & ((1 << LENGTH_BITS) - 1)
        counts, before_image = words[:, 2], _HEADER.size + 4 * words[:, 2]
        labels = np.where(counts > 0, numbers[:, 8], numbers[:, 3])
        ids, empty = seen[:, 16:24].copy().view("<u8")[:, 0], lengths == before_image
        ends = offsets_R + _PART.size + _padded(lengths)
        plain = (words[:, 0] == MAGIC) & (flags == WHOLE) & (lengths >= before_image)
        plain &= (offsets_R >= 0) & (ends <= self.size_bytes)
        for i in np.flatnonzero(~plain):
            record = self.read(int(offsets_R[i]))
            labels[i], ids[i], empty[i] = record.label, record.id, not record.image
        return labels, ids, empty

    def _payload(self, at: int) -> bytes:
        spans, _ = self._parts(at)
        return MAGIC_BYTES.join(self._bytes[start:end].tobytes() for start, end in spans)

    def _parts(self, at: int) -> tuple[list[tuple[int, int]], int]:
        """(first byte, end) of each of the record's parts, and where the next record begins."""
        spans: list[tuple[int, int]] = []
        part_at = at
        while True:
            flag, start, end = self._part(at, part_at)
            if flag not in ((MIDDLE, LAST) if spans else (WHOLE, FIRST)):
                raise ValueError(
                    f"{self.path}: in the record at byte {at}, the part at byte {part_at} has the "
                    f"flag {flag}, where a {'further' if spans else 'first'} part is expected"
                )
            spans.append((start, end))
            part_at = start + _padded(end - start)
            if flag in (WHOLE, LAST):
                return spans, part_at

    def _part(self, record_at: int, at: int) -> tuple[int, int, int]:
        """Flag, first byte and end of the part at a byte."""
        cut = (
            f"{self.path} is cut off: it ends at byte {self.size_bytes}, inside the record at byte "
            f"{record_at}"
        )
        if not 0 <= at <= self.size_bytes - _PART.size:
            raise ValueError(cut)
        magic, word = _PART.unpack(self._bytes[at : at + _PART.size].tobytes())
        if magic == OLD_MAGIC:
            raise ValueError(
                f"{self.path}: at byte {at} is {magic:#x}, the magic number of dmlc-core's first "
                "revision, which is not read; pack the images anew"
            )
        if magic != MAGIC:
            raise ValueError(
                f"{self.path}: at byte {at} is {magic:#x}, where a record's magic number "
                f"{MAGIC:#x} is expected"
            )
        length, start = word & ((1 << LENGTH_BITS) - 1), at + _PART.size
        if start + _padded(length) > self.size_bytes:
            raise ValueError(cut)
        return word >> LENGTH_BITS, start, start + length


def pack(label: float | Sequence[float], key: int, image: bytes = b"") -> bytes:
    """A record's bytes, magic and all. label: one, or several that follow the header.

    Raises ValueError for a payload of 512 MiB or more.
    """
    labels = [] if isinstance(label, int | float) else list(label)
    head = _HEADER.pack(len(labels), 0 if labels else label, key, 0)
    payload = head + struct.pack(f"<{len(labels)}f", *labels) + image
    if len(payload) >> LENGTH_BITS:
        raise ValueError(f"record {key} has {len(payload)} bytes; 2^{LENGTH_BITS} - 1 is the most")
    pieces, start, at = [], 0, payload.find(MAGIC_BYTES)
    while at >= 0:
        if at % 4 == 0:
            pieces.append(payload[start:at])
            start = at + 4
        at = payload.find(MAGIC_BYTES, start if at % 4 == 0 else at + 1)
    pieces.append(payload[start:])
    last = len(pieces) - 1
    flags = [WHOLE] if last == 0 else [FIRST, *[MIDDLE] * (last - 1), LAST]
    return b"".join(_part(flag, piece) for flag, piece in zip(flags, pieces, strict=True))


def _part(flag: int, piece: bytes) -> bytes:
    head = _PART.pack(MAGIC, flag << LENGTH_BITS | len(piece))
    return head + piece + bytes(_padded(len(piece)) - len(piece))


def _padded(length: Any) -> Any:
    return (length + 3) // 4 * 4
