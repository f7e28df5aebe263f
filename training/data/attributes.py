"""CelebA: faces with forty attributes each, from its own files or from a csv beside a zip.

Liu et al. 2015 (arXiv:1411.7766).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.data.expressions import first_there, pictures
from training.data.listing import rows
from training.data.pixels import Files, LazyPixels

NAMES: Final = (
    *("5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs"),
    *("Big_Lips", "Big_Nose", "Black_Hair", "Blond_Hair", "Blurry", "Brown_Hair"),
    *("Bushy_Eyebrows", "Chubby", "Double_Chin", "Eyeglasses", "Goatee", "Gray_Hair"),
    *("Heavy_Makeup", "High_Cheekbones", "Male", "Mouth_Slightly_Open", "Mustache"),
    *("Narrow_Eyes", "No_Beard", "Oval_Face", "Pale_Skin", "Pointy_Nose", "Receding_Hairline"),
    *("Rosy_Cheeks", "Sideburns", "Smiling", "Straight_Hair", "Wavy_Hair", "Wearing_Earrings"),
    *("Wearing_Hat", "Wearing_Lipstick", "Wearing_Necklace", "Wearing_Necktie", "Young"),
)
SPLITS: Final = ("train", "validation", "test")  # by list_eval_partition.txt's numbers
IMAGES: Final = "img_align_celeba"


@dataclass(frozen=True)
class AttributeSet:
    """Faces, each with what is true of it.

    pixels: uint8 (N, height, width, 3) RGB, decoded when asked for. labels_NA: bool. names: the A
    attributes. split_N: "train", "validation" or "test". paths: N names.
    """

    pixels: LazyPixels
    labels_NA: NDArray[np.bool_]
    names: tuple[str, ...]
    split_N: NDArray[np.str_]
    paths: list[str]

    def __len__(self) -> int:
        return len(self.paths)


def read_celeba(folder: Path) -> AttributeSet:
    """CelebA as its authors hand it out, or as attributes.csv (path, split, and 0 or 1 a name)
    beside crops.zip or a folder crops.

    The authors' files: list_attr_celeba.txt (here or in Anno), list_eval_partition.txt (here or in
    Eval) and img_align_celeba, a folder or .zip (here or in Img), of 178 x 218 px. Raises
    FileNotFoundError, and ValueError, with file and line, for what is not in the form that they
    have, for a row without an image and for an image that only one of the lists has.
    """
    listing = folder / "attributes.csv"
    return _of_csv(listing) if listing.exists() else _of_lists(folder)


def _of_csv(path: Path) -> AttributeSet:
    paths, splits, labels = [], [], []
    for where, row in rows(path, ("path", "split", *NAMES)):
        values = [row[name] for name in NAMES]
        if not set(values) <= {"0", "1"} or row["split"] not in SPLITS:
            raise ValueError(f"{where}: values are 0 or 1 and the split {' or '.join(SPLITS)}")
        paths.append(row["path"])
        splits.append(row["split"])
        labels.append([value == "1" for value in values])
    place = path.with_name("crops.zip")
    return _set(place if place.exists() else path.with_name("crops"), paths, splits, labels)


def _of_lists(folder: Path) -> AttributeSet:
    listing = first_there(folder, folder / "Anno", name="list_attr_celeba.txt")
    partition = _partition(first_there(folder, folder / "Eval", name="list_eval_partition.txt"))
    lines = listing.read_text().splitlines()
    if tuple(lines[1].split() if len(lines) > 1 else ()) != NAMES:
        raise ValueError(f"{listing}, line 2: the forty names of CelebA are expected")
    if not lines[0].strip() == str(len(lines) - 2):
        raise ValueError(f"{listing} announces {lines[0].strip()} images and has {len(lines) - 2}")
    paths, labels = [], []
    for number, line in enumerate(lines[2:], 3):
        name, *values = line.split() or [""]
        if len(values) != len(NAMES) or not set(values) <= {"1", "-1"}:
            raise ValueError(f"{listing}, line {number}: a name and forty of 1 and -1 are expected")
        if name not in partition:
            raise ValueError(f"{listing}, line {number}: {name} is in no part")
        paths.append(name)
        labels.append([value == "1" for value in values])
    if len(partition) != len(paths):
        raise ValueError(f"{listing} has {len(paths)} images, the list of parts {len(partition)}")
    splits = [partition[name] for name in paths]
    place = next(
        (p for p in (folder / f"{IMAGES}.zip", folder / "Img" / f"{IMAGES}.zip") if p.exists()),
        None,
    )
    place = place or first_there(folder, folder / "Img", name=IMAGES)
    return _set(place, paths, splits, labels)


def _partition(path: Path) -> dict[str, str]:
    """The part of each image."""
    found = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        words = line.split()
        if len(words) != 2 or words[1] not in ("0", "1", "2"):
            raise ValueError(f"{path}, line {number}: a name and 0, 1 or 2 are expected")
        found[words[0]] = SPLITS[int(words[1])]
    return found


def _set(
    place: Path, paths: list[str], splits: list[str], labels: list[list[bool]]
) -> AttributeSet:
    if not place.exists():
        raise FileNotFoundError(f"{place} is not there")
    files = Files(place)
    # The authors' zip has the images in a folder.
    stored = {name.removeprefix(f"{IMAGES}/"): name for name in files.names()}
    absent = next((path for path in paths if path not in stored), None)
    if absent is not None:
        raise ValueError(f"{place} has no {absent}")
    pixels = pictures(files, [stored[path] for path in paths])
    return AttributeSet(pixels, np.array(labels, bool), NAMES, np.array(splits), paths)
