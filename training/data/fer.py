"""FER2013's faces, 48 x 48 px grey, with its own labels or with FERPlus's votes.

Goodfellow et al. 2013 (arXiv:1307.0414); Barsoum et al. 2016 (arXiv:1608.01041), whose ten voters
an image chose among eight emotions, "unknown" and "no face" (NF). Both name the same parts.
"""

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from training.data.expressions import (
    CLASSES,
    ExpressionSet,
    among_classes,
    numbered,
    pictures,
)
from training.data.listing import rows
from training.data.pixels import Files, Pixels, chosen

SPLITS: Final = ("train", "validation", "test")  # each is held out longer than those before it
USAGES: Final = dict(zip(("Training", "PublicTest", "PrivateTest"), SPLITS, strict=True))
FER2013: Final = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
SIDE_PX: Final = 48
NO_EMOTION: Final = ("unknown", "NF")

Rule = Literal["argmax8", "majority"]
Duplicates = Literal["remove", "keep"]


def read_fer2013(path: Path, *, duplicates: Duplicates = "remove") -> ExpressionSet:
    """FER2013 from its csv (emotion, pixels, Usage), held as an array.

    duplicates: what becomes of images that equal, to the pixel, one of a later split.
    """
    splits, images, places = [], [], []
    for where, row in rows(path, ("emotion", "pixels", "Usage"), skip_spaces=True):
        splits.append(_split(where, row["Usage"]))
        images.append(_image(where, row["pixels"]))
        places.append(numbered(where, row["emotion"], FER2013, first=0))
    labels_N, classes = among_classes(places, FER2013)
    names = [f"{i:05d}" for i in range(len(images))]
    found = ExpressionSet(np.stack(images), labels_N, None, classes, np.array(splits), names)
    return found if duplicates == "keep" else _without_duplicates(found, _hashes(found.pixels))


def read_ferplus(
    folder: Path, *, rule: Rule = "argmax8", duplicates: Duplicates = "remove"
) -> ExpressionSet:
    """FERPlus: fer2013new.csv with FER2013's images, labelled by a rule of labels_of.

    folder: with the csv and either images.zip, a folder for each part (FER2013Train and so on, here
    or in `data`), or fer2013.csv, whose rows stand in the same order. duplicates: as in
    read_fer2013; pixel_duplicates.csv (group, image), where it lies there, says which images
    are equal, else their pixels do. Four names of the published csv stand in two rows each.
    """
    votes = read_votes(folder / "fer2013new.csv")
    labels_R = labels_of(votes.votes_RK, rule)
    kept = [i for i in np.flatnonzero(labels_R >= 0) if votes.names[i]]
    pixels, paths = _pixels(folder, votes, kept)
    emotions_NK = votes.votes_RK[kept, : len(CLASSES)]
    splits = votes.split_R[kept]
    found = ExpressionSet(pixels, labels_R[kept], emotions_NK, CLASSES, splits, paths)
    if duplicates == "keep":
        return found
    listed = folder / "pixel_duplicates.csv"
    if not listed.exists():
        return _without_duplicates(found, _hashes(pixels))
    group = {row["image"]: row["group"] for _, row in rows(listed, ("group", "image"))}
    return _without_duplicates(found, [group.get(votes.names[i], i) for i in kept])


@dataclass(frozen=True)
class Votes:
    """fer2013new.csv, whose rows stand in fer2013.csv's order. names: of the images, empty where
    there is none. votes_RK: int64, for the eight classes, "unknown" and "NF"."""

    split_R: NDArray[np.str_]
    names: list[str]
    votes_RK: NDArray[np.int64]


def read_votes(path: Path) -> Votes:
    """The votes of fer2013new.csv."""
    columns = (*CLASSES, *NO_EMOTION)
    splits, names, votes = [], [], []
    for where, row in rows(path, ("Usage", "Image name", *columns), skip_spaces=True):
        counts = [row[name] for name in columns]
        if not all(count.isdecimal() for count in counts):
            raise ValueError(f"{where}: votes are whole numbers, not {counts}")
        splits.append(_split(where, row["Usage"]))
        names.append(row["Image name"])
        votes.append([int(count) for count in counts])
    return Votes(np.array(splits), names, np.array(votes, np.int64))


def labels_of(votes_RK: NDArray[np.int64], rule: Rule) -> NDArray[np.int64]:
    """The class that each row's votes are for, -1 where they are for none.

    "argmax8": the emotion with most votes, the first of equals, unless "NF" has more votes than
    each other; 35,710 rows of the csv, as PAtt-Lite counts. "majority", FERPlus's own: single votes
    do not count, and more than half of the others must be for one emotion; 31,412 rows.
    votes_RK: as in Votes.
    """
    if rule == "argmax8":
        emotions = votes_RK[:, : len(CLASSES)]
        nothing = ~emotions.any(1) | (votes_RK.argmax(1) == votes_RK.shape[1] - 1)
        return np.where(nothing, -1, emotions.argmax(1))
    if rule != "majority":
        raise ValueError(f"the rule is {rule!r}; it must be argmax8 or majority")
    counted = np.where(votes_RK > 1, votes_RK, 0)
    first = counted.argmax(1)
    most = 2 * counted.max(1) > counted.sum(1)
    return np.where(most & (first < len(CLASSES)), first, -1)


def _pixels(folder: Path, votes: Votes, kept: Sequence[int]) -> tuple[Pixels, list[str]]:
    """The images of the rows that are kept, and their names."""
    place = next(
        (p for p in (folder / "images.zip", folder, folder / "data") if _has_parts(p)), None
    )
    names = [votes.names[i] for i in kept]
    if place is None:
        images = _images(folder, votes)
        return np.stack([images[i] for i in kept]), names
    files = Files(place)
    by_stem = {Path(name).stem: name for name in files.names() if not name.endswith(".csv")}
    absent = next((name for name in names if Path(name).stem not in by_stem), None)
    if absent is not None:
        raise ValueError(f"{place} has no image of {absent}")
    paths = [by_stem[Path(name).stem] for name in names]
    return pictures(files, paths, grey=True), paths


def _has_parts(place: Path) -> bool:
    return place.is_file() or (place / "FER2013Train").is_dir()


def _images(folder: Path, votes: Votes) -> list[NDArray[np.uint8]]:
    """The images of fer2013.csv, in the order of the votes."""
    path = folder / "fer2013.csv"
    if not path.exists():
        raise FileNotFoundError(f"{folder} has neither images.zip nor FER2013Train nor fer2013.csv")
    images, splits = [], []
    for where, row in rows(path, ("pixels", "Usage"), skip_spaces=True):
        images.append(_image(where, row["pixels"]))
        splits.append(_split(where, row["Usage"]))
    if splits != votes.split_R.tolist():
        raise ValueError(f"{path} and fer2013new.csv do not have the same rows in the same order")
    return images


def _without_duplicates(found: ExpressionSet, equal_to: Sequence[Hashable]) -> ExpressionSet:
    """The set without images that equal one which is held out longer. equal_to: the same for equal
    images."""
    held_out = [SPLITS.index(split) for split in found.split_N]
    longest: dict[Hashable, int] = {}
    for key, rank in zip(equal_to, held_out, strict=True):
        longest[key] = max(rank, longest.get(key, 0))
    kept = np.flatnonzero(
        [rank == longest[key] for key, rank in zip(equal_to, held_out, strict=True)]
    )
    return replace(
        found,
        pixels=chosen(found.pixels, kept),
        labels_N=found.labels_N[kept],
        votes_NK=None if found.votes_NK is None else found.votes_NK[kept],
        split_N=found.split_N[kept],
        paths=[found.paths[i] for i in kept],
        duplicates=len(found) - len(kept),
    )


def _hashes(pixels: Pixels) -> list[bytes]:
    return [hashlib.sha1(image.tobytes()).digest() for image in pixels]


# Rows


def _split(where: str, usage: str) -> str:
    if usage not in USAGES:
        raise ValueError(f"{where}: the usage is {usage!r}; it must be one of {', '.join(USAGES)}")
    return USAGES[usage]


def _image(where: str, text: str) -> NDArray[np.uint8]:
    words = text.split()
    if len(words) != SIDE_PX**2:
        raise ValueError(f"{where} has {len(words)} pixels, not {SIDE_PX} x {SIDE_PX}")
    try:
        pixels = bytes(map(int, words))
    except ValueError:
        raise ValueError(f"{where}: a pixel is no number from 0 to 255") from None
    return np.frombuffer(pixels, np.uint8).reshape(SIDE_PX, SIDE_PX)
