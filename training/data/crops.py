"""Aligned crops as arrays: decoded once from a zip or a folder, then mapped from disk into memory.

A set is a csv (`path,person,...`; an empty person means unlabelled) beside a zip or folder of
images of one size. Decoding 29,000 crops takes under a minute, so it is done once and kept as one
uint8 array."""

import csv
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Crops:
    """A set of aligned crops of people.

    pixels_NHWC: uint8 (N, height, width, 3) RGB, memory-mapped and read-only. paths: N names.
    labels_N: int64, the person's place in `people`, -1 where the crop has none.
    """

    pixels_NHWC: NDArray[np.uint8]
    paths: list[str]
    labels_N: NDArray[np.int64]
    people: list[str]

    def __len__(self) -> int:
        return len(self.paths)


def read_crops(csv_path: Path, cache: Path) -> Crops:
    """The crops that csv_path lists, from the zip or folder of the same stem beside it.

    cache: a folder for the decoded array; it is made anew when the csv or the images are newer.
    Raises FileNotFoundError where neither zip nor folder is there, ValueError (naming the file and
    the path) for an image that is missing, broken or of another size than the first."""
    with csv_path.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    paths = [row["path"] for row in rows]
    people = sorted({row["person"] for row in rows if row["person"]})
    place = {person: i for i, person in enumerate(people)}
    labels = np.array([place.get(row["person"], -1) for row in rows], np.int64)
    return Crops(_decoded(csv_path, paths, cache), paths, labels, people)


def join(*sets: Crops) -> Crops:
    """The sets one after the other, their people kept apart by name."""
    people = sorted({person for s in sets for person in s.people})
    place = {person: i for i, person in enumerate(people)}
    labels = [
        np.array([place[s.people[i]] if i >= 0 else -1 for i in s.labels_N], np.int64) for s in sets
    ]
    pixels = np.concatenate([s.pixels_NHWC for s in sets])
    return Crops(pixels, [p for s in sets for p in s.paths], np.concatenate(labels), people)


def _decoded(csv_path: Path, paths: list[str], cache: Path) -> NDArray[np.uint8]:
    source = next(
        (p for p in (csv_path.with_suffix(".zip"), csv_path.with_suffix("")) if p.exists()), None
    )
    if source is None:
        raise FileNotFoundError(f"{csv_path}: neither {csv_path.stem}.zip nor a folder beside it")
    kept = cache / f"{csv_path.parent.name}-{csv_path.stem}.npy"
    newest = max(csv_path.stat().st_mtime, source.stat().st_mtime)
    if not kept.exists() or kept.stat().st_mtime < newest:
        _decode(source, paths, kept)
    pixels = np.load(kept, mmap_mode="r")
    if len(pixels) != len(paths):
        raise ValueError(
            f"{kept}: {len(pixels)} crops, but {csv_path} lists {len(paths)}; remove it"
        )
    return pixels


def _decode(source: Path, paths: list[str], kept: Path) -> None:
    """Writes the decoded array beside its name first, so that a broken run leaves no half of it."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    part = kept.with_suffix(f".{os.getpid()}.part")
    out: NDArray[np.uint8] | None = None
    with _reader(source) as read:
        for i, path in enumerate(paths):
            bgr = cv2.imdecode(np.frombuffer(read(path), np.uint8), cv2.IMREAD_COLOR)
            if bgr is None:
                raise ValueError(f"{source}: {path} is not an image")
            if out is None:
                shape = (len(paths), *bgr.shape)
                out = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)
            if bgr.shape != out.shape[1:]:
                raise ValueError(f"{source}: {path} is {bgr.shape}, the first was {out.shape[1:]}")
            out[i] = bgr[:, :, ::-1]
    if out is None:
        raise ValueError(f"{source}: the csv beside it lists no crop")
    out.flush()
    part.replace(kept)


@contextmanager
def _reader(source: Path) -> Iterator[Callable[[str], bytes]]:
    """A function from a name to its bytes, in a zip or a folder."""
    if source.suffix == ".zip":
        with zipfile.ZipFile(source) as packed:
            yield packed.read
    else:
        yield lambda name: (source / name).read_bytes()
