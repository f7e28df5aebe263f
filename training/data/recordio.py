"""InsightFace's sets of crops: NAME.rec with NAME.idx and `property` beside it.

records.py says what a .rec is. A .idx names a record a line, `key<TAB>byte`. The record of key 0
has no image but two labels (N, M): images are the keys 1 to N - 1, and N to M - 1 are records of
people, with the key of a person's first image and that of the next person's. A set whose record 0
is an image has images alone. `property` says `people,height,width`.
"""

import os
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from training.data.crops import Crops
from training.data.pixels import LazyPixels, decode
from training.data.records import Records, pack

MOST: Final = 1 << 24  # labels and keys are kept as float32, which holds each whole number so far


def read_rec(path: Path) -> Crops:
    """The images of a .rec, decoded when they are asked for, and their labels.

    people: "0", "1", ..., as many as `property` says, or up to the largest label without one. The
    records' heads are read once and kept beside as .heads.npz for as long as neither .rec nor .idx
    changes; a .idx that is missing is made up for by going through the file. Raises
    FileNotFoundError, and ValueError with file, record and byte for a file that is cut off, a wrong
    magic number, a label out of range and, once it is asked for, an image that cannot be decoded or
    is not as large as the first.
    """
    records = Records(path)
    index = _images(path, _kept_index(records))
    classes = _classes(path)
    limit = MOST if classes is None else classes
    labels_N = _whole_labels(path, index, limit)
    people = [str(i) for i in range(int(labels_N.max()) + 1 if classes is None else classes)]
    images = _Images(records, index)
    pixels = LazyPixels(images.picture, len(index.keys_R), images.name)
    return Crops(pixels, _Names(path.stem, index.keys_R), labels_N, people)


@dataclass(frozen=True)
class _Index:
    """Records in the order of their keys, with what their heads say."""

    keys_R: NDArray[np.int64]
    offsets_R: NDArray[np.int64]
    labels_R: NDArray[np.float32]
    empty_R: NDArray[np.bool_]

    def at(self, places: Any) -> "_Index":
        return _Index(*(column[places] for column in vars(self).values()))


@dataclass(frozen=True)
class _Images:
    """The images of an index, as LazyPixels asks for them."""

    records: Records
    index: _Index

    def picture(self, i: int) -> NDArray[np.uint8]:
        return decode(self.records.read(int(self.index.offsets_R[i])).image, self.name(i))

    def name(self, i: int) -> str:
        return (
            f"{self.records.path}: the image of record {self.index.keys_R[i]} at byte "
            f"{self.index.offsets_R[i]}"
        )


class _Names(Sequence[str]):
    """Names of millions of images, made when they are asked for."""

    def __init__(self, stem: str, keys_N: NDArray[np.int64]) -> None:
        self._stem, self._keys_N = stem, keys_N

    def __len__(self) -> int:
        return len(self._keys_N)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [f"{self._stem}/{key}" for key in self._keys_N[index]]
        return f"{self._stem}/{self._keys_N[index]}"


def _images(path: Path, index: _Index) -> _Index:
    """The records that are images."""
    has_head = index.keys_R[0] == 0 and index.empty_R[0]
    images = index.at(np.flatnonzero(~index.empty_R))
    if has_head:
        end = index.labels_R[0]  # beyond MOST it is rounded
        if not len(images.keys_R) + 1 == end and not end > MOST:
            raise ValueError(
                f"{path}: record 0 says that the images are the records 1 to {end - 1:.0f}, but "
                f"{len(images.keys_R)} records have an image"
            )
    if not len(images.keys_R):
        raise ValueError(f"{path} holds no image")
    return images


def _whole_labels(path: Path, index: _Index, limit: int) -> NDArray[np.int64]:
    labels = index.labels_R
    wrong = np.flatnonzero(~((labels >= 0) & (labels < limit) & (labels == np.floor(labels))))
    if len(wrong):
        i = wrong[0]
        raise ValueError(
            f"{path}: record {index.keys_R[i]} at byte {index.offsets_R[i]} has the label "
            f"{labels[i]:g}; labels are whole numbers from 0 to {limit - 1}"
        )
    return labels.astype(np.int64)


def _classes(path: Path) -> int | None:
    """How many people `property` says there are."""
    file = path.with_name("property")
    if not file.exists():
        return None
    line = file.read_text().strip()
    words = line.split(",")
    if len(words) != 3 or not all(word.strip().isdecimal() for word in words):
        raise ValueError(f"{file} says {line!r}, where people,height,width are expected")
    return int(words[0])


# The index


def _kept_index(records: Records) -> _Index:
    """The index from the file beside, where it is of this .rec and .idx, else made and kept."""
    path, kept = records.path, records.path.with_suffix(".heads.npz")
    stamp = [
        number
        for file in (path, path.with_suffix(".idx"))
        if file.exists()
        for number in (file.stat().st_size, file.stat().st_mtime_ns)
    ]
    try:
        with kept.open("rb") as file, np.load(file) as arrays:
            if arrays["stamp"].tolist() == stamp:
                return _Index(*(arrays[name] for name in _Index.__dataclass_fields__))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # none yet, or none that can be used
    index = _index(records)
    part = kept.with_suffix(f".{os.getpid()}.part")
    try:
        with part.open("wb") as out:
            np.savez(out, stamp=stamp, **vars(index))
        part.replace(kept)
    except OSError:  # a read-only or full disk: the heads are read again the next time
        with suppress(OSError):
            part.unlink()
    return index


def _index(records: Records) -> _Index:
    listed = _listed(records.path.with_suffix(".idx"))
    offsets_R = records.offsets() if listed is None else listed[1]
    heads = records.heads(offsets_R)
    keys_R = _own_keys(heads.ids_R) if listed is None else listed[0]
    order = np.argsort(keys_R, kind="stable")
    return _Index(keys_R, offsets_R, heads.labels_R, heads.empty_R).at(order)


def _listed(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Keys and bytes of a .idx; None without one."""
    if not path.exists() or path.stat().st_size == 0:
        return None
    try:
        keys_R, offsets_R = np.loadtxt(path, np.int64, ndmin=2).T
    except ValueError as error:
        raise ValueError(f"{path}: lines of key and byte are expected ({error})") from error
    if len(np.unique(keys_R)) != len(keys_R):
        raise ValueError(f"{path} names a key twice")
    return keys_R, offsets_R


def _own_keys(ids_R: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Keys without a .idx: packers give a record its key as id; where not so, its place."""
    if len(np.unique(ids_R)) == len(ids_R) and ids_R.max() < 1 << 62:
        return ids_R.astype(np.int64)
    return np.arange(len(ids_R))


# Writing


class RecordWriter:
    """A .rec in the making; .idx, property and .rec get their names when all of it is written.

    `with RecordWriter(path) as out: out.add(label, image)`, images person by person, labels 0, 1, 2
    and so on. If the block is left by an error, NAME.rec.part stays; `resume_at` goes on with it.
    """

    def __init__(self, path: Path, *, side: int = 112, resume_at: int | None = None) -> None:
        """side: of the crops, in px, for `property`. resume_at: an `end` up to which `sync` brought
        the part to the disk; what lies beyond is dropped. Raises ValueError for a part with crops
        of another side."""
        if path.suffix != ".rec":
            raise ValueError(f"{path} is not named .rec")
        self.path, self.part, self.side = path, path.with_suffix(".rec.part"), side
        self._offsets, self._labels = [0], [-1]
        if resume_at is None:
            self._out = self.part.open("wb")
            self._out.write(pack((0, 0), 0))  # N and M are known at the end
        else:
            self._take_up(resume_at)
            self._out = self.part.open("r+b")
            self._out.seek(resume_at)

    def __enter__(self) -> "RecordWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: Any, trace: TracebackType | None
    ) -> None:
        with self._out:
            if kind is None:
                self._finish()
        if kind is None:
            self.part.replace(self.path)

    def add(self, label: int, image: bytes) -> None:
        """Raises ValueError for a label that is neither the last one nor the next."""
        last, key = self._labels[-1], len(self._labels)
        if label not in (max(last, 0), last + 1):
            raise ValueError(f"the label {label} follows {last}; labels go up one by one from 0")
        if key + label + 2 > MOST:
            raise ValueError(f"{self.path}: images and people together cannot be {MOST} or more")
        self._offsets.append(self._out.tell())
        self._labels.append(int(label))
        self._out.write(pack(int(label), key, image))

    @property
    def end(self) -> int:
        """The byte after the last record."""
        return self._out.tell()

    def sync(self) -> None:
        """Brings all that was added to the disk."""
        self._out.flush()
        os.fsync(self._out.fileno())

    def _take_up(self, end: int) -> None:
        os.truncate(self.part, end)
        records = Records(self.part)
        offsets_R = records.offsets()
        self._offsets = offsets_R.tolist()
        self._labels = [-1, *records.heads(offsets_R).labels_R[1:].astype(int).tolist()]
        if len(offsets_R) > 1:
            height = len(decode(records.read(self._offsets[1]).image, str(self.part)))
            if height != self.side:
                raise ValueError(
                    f"{self.part} was begun with crops of {height} px, not {self.side}"
                )

    def _finish(self) -> None:
        count = len(self._labels)
        if count == 1:
            raise ValueError(f"{self.path}: there is no image to write")
        firsts = [i for i in range(1, count) if self._labels[i] != self._labels[i - 1]]
        for key, (first, end) in enumerate(zip(firsts, [*firsts[1:], count], strict=True), count):
            self._offsets.append(self._out.tell())
            self._out.write(pack((first, end), key))
        self._out.seek(0)
        self._out.write(pack((count, count + len(firsts)), 0))
        self.sync()
        lines = "".join(f"{key}\t{at}\n" for key, at in enumerate(self._offsets))
        _write_text(self.path.with_suffix(".idx"), lines)
        side = self.side
        _write_text(self.path.with_name("property"), f"{len(firsts)},{side},{side}\n")


def _write_text(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    with part.open("w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    part.replace(path)
