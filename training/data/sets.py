"""Every form that a set of people's crops comes in, and sets by name with their shares."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from training.data.crops import Crops, read_crops, read_folder
from training.data.pixels import chosen
from training.data.recordio import read_rec

KEPT_OUT = re.compile(r"ff/\d*0\.")  # FairFace's faces whose number ends with 0


@dataclass(frozen=True)
class NamedSet:
    """A set of a recipe's field: its name, the prefix of the paths that are taken, and its part of
    every batch, or None."""

    name: str
    prefix: str
    share: float | None


def named_sets(text: str) -> list[NamedSet]:
    """The sets of "NAME[/PREFIX][:SHARE] ...".

    Raises ValueError without a name, for a set that is named twice, and for shares that are not in
    (0, 1] or add up to more than 1."""
    sets = []
    for part in text.split():
        place, colon, number = part.partition(":")
        name, _, prefix = place.partition("/")
        try:
            share = float(number) if colon else None
        except ValueError:
            raise ValueError(f"sets: {part} has a share of {number!r}, not a number") from None
        if not name or (share is not None and not 0 < share <= 1):
            raise ValueError(f"sets: {part} is not NAME[/PREFIX][:SHARE] with a share in (0, 1]")
        sets.append(NamedSet(name, prefix, share))
    names = [each.name for each in sets]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"sets: {twice} is named twice")
    if not sets:
        raise ValueError("sets: no set is named")
    if (total := sum(each.share or 0 for each in sets)) > 1:
        raise ValueError(f"sets: the shares add up to {total:g}; the limit is 1")
    return sets


def is_kept_out(path: str) -> bool:
    """True for every tenth of FairFace's faces: they are calibration's, and never trained on."""
    return KEPT_OUT.match(path) is not None


def of_training(crops: Crops, prefix: str = "") -> Crops:
    """The crops whose path begins with prefix, but for FairFace's that are kept for calibration.

    Raises ValueError if none is left."""
    places = np.array(
        [
            i
            for i, path in enumerate(crops.paths)
            if path.startswith(prefix) and not is_kept_out(path)
        ],
        np.int64,
    )
    if len(places) == len(crops):
        return crops
    if not len(places):
        raise ValueError(f"sets: no crop for training has a path that begins with {prefix!r}")
    labels = crops.labels_N[places]
    kept, numbers = np.unique(labels[labels >= 0], return_inverse=True)
    labels = labels.copy()
    labels[labels >= 0] = numbers
    return replace(
        crops,
        pixels_NHWC=chosen(crops.pixels_NHWC, places),
        paths=[crops.paths[i] for i in places],
        labels_N=labels,
        people=[crops.people[i] for i in kept],
    )


def read_set(path: Path, cache: Path) -> Crops:
    """The crops of a .rec, of a csv beside a zip or folder (either may be named), or of a folder
    with a folder a person.

    cache: a folder for what is decoded once. Raises FileNotFoundError, and ValueError with the file
    for what is wrong inside; read_rec, read_crops and read_folder say more.
    """
    if path.suffix == ".rec":
        return read_rec(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there")
    stem = path.stem if path.suffix in (".csv", ".zip") else path.name
    listing = path.with_name(f"{stem}.csv")
    if listing.exists():
        return read_crops(listing, cache)
    if path.is_dir():
        return read_folder(path, cache)
    raise ValueError(
        f"{path} is no set of crops: a .rec, a csv beside a zip or folder, or a folder with a "
        "folder a person"
    )
