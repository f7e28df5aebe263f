"""Sets of pairs to verify: LFW's photographs, InsightFace's .bin, and crops in a .rec, a folder or
a zip beside a file of pairs in LFW's form."""

import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from training.data.pixels import Files, LazyPixels, Pixels, decode
from training.data.recordio import read_rec
from training.data.verification_bin import read_bin
from training.evaluate import lfw
from training.evaluate.pairs import Pairs, contiguous_folds, read_pairs
from training.graphs import SIDE

Key = tuple[str, int]


@dataclass(frozen=True)
class PairSet:
    """Aligned crops and which of them to compare.

    pixels_NHWC: uint8 (N, 112, 112, 3) RGB."""

    name: str
    pixels_NHWC: Pixels
    pairs: Pairs


def read_lfw(folder: Path) -> PairSet:
    """LFW's 6,000 pairs, from a folder with photos.zip, landmarks.csv and pairs.txt."""
    pairs = read_pairs(folder / "pairs.txt")
    return PairSet("LFW", lfw.read_crops(folder, pairs.names), pairs)


def read_pair_set(asked: str) -> PairSet:
    """The set that `NAME=CROPS` or `NAME=CROPS,PAIRS` names.

    CROPS is an InsightFace .bin, which holds its pairs; or a .rec, a folder or a zip of crops with
    PAIRS in LFW's form: photograph j of Ada is Ada/Ada_000j with any suffix, in a .rec the j-th
    record of the person of that label. Raises FileNotFoundError, and ValueError for what does not
    fit, naming it."""
    name, equals, places = asked.partition("=")
    crops, comma, listed = places.partition(",")
    if not (equals and name and crops):
        raise ValueError(f"--pairs takes NAME=CROPS or NAME=CROPS,PAIRS, not {asked!r}")
    source = Path(crops)
    for place in (source, *([Path(listed)] if comma else [])):
        if not place.exists():
            raise FileNotFoundError(f"{place}: there is no such file")
    if source.suffix == ".bin":
        if comma:
            raise ValueError(f"{source} holds its pairs itself; {listed} is one file too many")
        return _bin(name, source)
    if not comma:
        raise ValueError(f"{source} holds no pairs: give {name}={source},PAIRS")
    pairs = read_pairs(Path(listed))
    return PairSet(name, _crops(source, pairs), pairs)


def _bin(name: str, path: Path) -> PairSet:
    """Pair k is crops 2k and 2k + 1, and the folds are ten equal blocks."""
    found = read_bin(path)
    count = len(found.same_P)
    first = 2 * np.arange(count)
    photographs = [(name, i + 1) for i in range(2 * count)]
    pairs = Pairs(photographs, first, first + 1, found.same_P, contiguous_folds(count))
    return PairSet(name, _of_side(found.pixels_NHWC, path), pairs)


def _crops(source: Path, pairs: Pairs) -> Pixels:
    """The crops of pairs.photographs, in their order."""
    if source.suffix == ".rec":
        return _from_rec(source, pairs)
    if not (source.is_dir() or (source.suffix == ".zip" and zipfile.is_zipfile(source))):
        raise ValueError(f"{source} is neither a .bin, a .rec, a folder nor a zip")
    files = Files(source)
    there = _keyed(files.names())
    absent = next((key for key in pairs.photographs if key not in there), None)
    if absent:
        raise ValueError(f"{source} lacks {absent[0]}/{absent[0]}_{absent[1]:04d}, which is asked")
    names = [there[key] for key in pairs.photographs]

    def picture(place: int) -> NDArray[np.uint8]:
        return decode(files.read(names[place]), f"{source}: {names[place]}")

    lazy = LazyPixels(picture, len(names), lambda place: f"{source}: {names[place]}")
    return _of_side(lazy, source)


def _from_rec(source: Path, pairs: Pairs) -> Pixels:
    crops = read_rec(source)
    rows: dict[str, list[int]] = {}
    for i, label in enumerate(crops.labels_N):
        rows.setdefault(crops.people[label], []).append(i)
    for who, number in pairs.photographs:
        if not 1 <= number <= len(rows.get(who, ())):
            raise ValueError(
                f"{source}: person {who} has {len(rows.get(who, ()))} crops, "
                f"and the pairs ask for number {number}"
            )
    chosen = [rows[who][number - 1] for who, number in pairs.photographs]
    return _of_side(crops.pixels_NHWC[np.array(chosen)], source)


def _of_side(pixels_NHWC: Pixels, source: Path) -> Pixels:
    if tuple(pixels_NHWC.shape[1:]) != (SIDE, SIDE, 3):
        raise ValueError(f"{source}: crops are {pixels_NHWC.shape[1:]}, not ({SIDE}, {SIDE}, 3)")
    return pixels_NHWC


def _keyed(names: list[str]) -> dict[Key, str]:
    """By the last two parts of Ada/Ada_0001.jpg, wherever in the tree they are."""
    keyed = {}
    for name in names:
        path = PurePosixPath(name)
        who, _, number = path.stem.rpartition("_")
        if number.isdigit() and who == path.parent.name:
            keyed[who, int(number)] = name
    return keyed
