"""Aligned crops as arrays: decoded once from a zip or a folder, then mapped from disk into memory.

A set is a csv (`path,person,...`; an empty person means unlabelled) beside a zip or folder of
images of one size, or a folder with a folder of such images a person. Decoding 29,000 crops takes
under a minute, so it is done once and kept as one uint8 array. sets.py has the door to these and to
.rec files, which are not decoded beforehand."""

import hashlib
import os
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.people_folder import require_folder_per_person, system_reason
from training.data.listing import rows
from training.data.pixels import Files, LazyPixels, Pixels, decode


@dataclass(frozen=True)
class Crops:
    """A set of aligned crops of people.

    pixels_NHWC: uint8 (N, height, width, 3) RGB, read-only: an array mapped from disk, or one that
    is decoded as it is indexed. paths: N names. labels_N: int64, the person's place in `people`, -1
    where the crop has none.
    """

    pixels_NHWC: Pixels
    paths: Sequence[str]
    labels_N: NDArray[np.int64]
    people: list[str]

    def __len__(self) -> int:
        return len(self.paths)


def read_crops(csv_path: Path, cache: Path) -> Crops:
    """The crops that csv_path lists, from the zip or folder of the same stem beside it.

    cache: a folder for the decoded array; it is made anew when the csv or the images are newer.
    Raises FileNotFoundError where neither zip nor folder is there, ValueError (naming the file and
    the path) for a csv without the two columns, for a zip that is none and for an image that is
    missing, broken or of another size than the first."""
    listed = [(row["path"], row["person"]) for _, row in rows(csv_path, ("path", "person"))]
    paths = [path for path, _ in listed]
    people = sorted({person for _, person in listed if person})
    place = {person: i for i, person in enumerate(people)}
    labels = np.array([place.get(person, -1) for _, person in listed], np.int64)
    source = next(
        (p for p in (csv_path.with_suffix(".zip"), csv_path.with_suffix("")) if p.exists()), None
    )
    if source is None:
        raise FileNotFoundError(f"{csv_path}: neither {csv_path.stem}.zip nor a folder beside it")
    kept = _kept(cache, csv_path, f"{csv_path.parent.name}-{csv_path.stem}")
    newest = max(csv_path.stat().st_mtime, source.stat().st_mtime)
    return Crops(_decoded(csv_path, source, paths, kept, newest), paths, labels, people)


def read_folder(folder: Path, cache: Path) -> Crops:
    """The crops of a folder with a folder a person, person by person in alphabetical order.

    A person's folder may have albums, folders of its own (service/people_folder.py has the rule).
    Hidden files and those of systems are skipped. cache: as in read_crops. Raises FileNotFoundError
    without a crop, and ValueError as read_crops does, for a file that lies in no person's folder
    and for a folder that seems to be one level too high."""
    paths = files_of_people(folder)
    require_folder_per_person(folder, paths)
    stray = next((path for path in paths if "/" not in path), None)
    if stray is not None:
        raise ValueError(f"{folder}: {stray} lies in no person's folder")
    people = sorted({path.split("/")[0] for path in paths})
    place = {person: i for i, person in enumerate(people)}
    labels = np.array([place[path.split("/")[0]] for path in paths], np.int64)
    newest = max(os.stat(path).st_mtime for walked in os.walk(folder) for path in _found(walked))
    kept = _kept(cache, folder, folder.name)
    return Crops(_decoded(folder, folder, paths, kept, newest), paths, labels, people)


def files_of_people(folder: Path) -> list[str]:
    """The files below a folder, by their outermost folders, then by name; hidden ones and those of
    systems are skipped. Raises FileNotFoundError without one."""
    return sort_out_files(folder)[0]


def sort_out_files(folder: Path) -> tuple[list[str], dict[str, int]]:
    """files_of_people, and how many files of systems were skipped, by reason."""
    names, skipped = [], Counter[str]()
    for name in Files(folder).names():
        if (reason := system_reason(name)) is not None:
            skipped[reason] += 1
        elif not f"/{name}".count("/."):
            names.append(name)
    if not names:
        raise FileNotFoundError(f"{folder} has no file in a person's folder")
    names.sort(key=lambda name: (name.split("/")[0], name))
    return names, dict(skipped.most_common())


def _found(walked: tuple[str, list[str], list[str]]) -> list[str]:
    """A folder and its files, of what os.walk gives."""
    return [walked[0], *(os.path.join(walked[0], name) for name in walked[2])]


def join(*sets: Crops) -> Crops:
    """The sets one after the other, their people kept apart by name; a single set as it is."""
    if len(sets) == 1:
        return sets[0]
    people = sorted({person for s in sets for person in s.people})
    place = {person: i for i, person in enumerate(people)}
    labels = [
        np.array([place[s.people[i]] if i >= 0 else -1 for i in s.labels_N], np.int64) for s in sets
    ]
    pixels = _joined([s.pixels_NHWC for s in sets])
    return Crops(pixels, [p for s in sets for p in s.paths], np.concatenate(labels), people)


def _joined(parts: list[Pixels]) -> Pixels:
    """One array of arrays; where one is decoded as it is indexed, so is the whole."""
    if len({part.shape[1:] for part in parts}) > 1:
        raise ValueError(f"crops of {' and '.join(str(p.shape[1:]) for p in parts)} do not join")
    if all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate(parts)
    starts = np.cumsum([0, *map(len, parts)]).tolist()
    return LazyPixels(_Joined(parts, starts).picture, starts[-1])


@dataclass(frozen=True)
class _Joined:
    parts: list[Pixels]
    starts: list[int]

    def picture(self, i: int) -> NDArray[np.uint8]:
        part = bisect_right(self.starts, i) - 1
        return self.parts[part][i - self.starts[part]]


def _kept(cache: Path, source: Path, name: str) -> Path:
    """Where a set's array is kept: sets of one name, of different places, have one each."""
    where = hashlib.sha256(os.fsencode(source.resolve())).hexdigest()[:8]
    return cache / f"{name}-{where}.npy"


def _decoded(
    listing: Path, source: Path, paths: list[str], kept: Path, newest: float
) -> NDArray[np.uint8]:
    """The array that is kept, made anew where it is older than `newest`, an st_mtime."""
    if not kept.exists() or kept.stat().st_mtime < newest:
        _decode(source, paths, kept)
    pixels = np.load(kept, mmap_mode="r")
    if len(pixels) != len(paths):
        raise ValueError(
            f"{kept}: {len(pixels)} crops, but {listing} lists {len(paths)}; remove it"
        )
    return pixels


def _decode(source: Path, paths: list[str], kept: Path) -> None:
    """Writes the decoded array beside its name first, so that a broken run leaves no half of it."""
    if not paths:
        raise ValueError(f"{source}: the csv beside it lists no crop")
    kept.parent.mkdir(parents=True, exist_ok=True)
    part = kept.with_suffix(f".{os.getpid()}.part")
    files, first = Files(source), None
    try:
        with part.open("wb") as out:
            for path in paths:
                crop = decode(files.read(path), f"{source}: {path}")
                if first is None:
                    first = crop.shape
                    header = {"descr": "|u1", "fortran_order": False, "shape": (len(paths), *first)}
                    np.lib.format.write_array_header_1_0(out, header)
                if crop.shape != first:
                    raise ValueError(f"{source}: {path} is {crop.shape}, the first was {first}")
                out.write(crop)
        part.replace(kept)
    finally:
        part.unlink(missing_ok=True)
