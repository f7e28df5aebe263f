"""Sets of faces with an expression: RAF-DB and CK+ here, FER2013 and FERPlus in fer.py.

Each is read from the files that its authors hand out; what is not as they say is a ValueError with
file and line. Classes stand in FERPlus's order everywhere, without those that a set does not have.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from service.vision.align import align_crops
from service.vision.faces import Photograph
from training.data.crops import files_of_people
from training.data.pixels import Files, LazyPixels, Pixels, decode

CLASSES: Final = (
    *("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"),
)
# What the sets' own numbers mean, from 1 on.
RAF_DB: Final = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
CK_PLUS: Final = ("anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise")
FOLDS: Final = 10
# Of the 68 points of CK+, those whose means are the five landmarks.
FIVE_OF_68: Final = (slice(36, 42), slice(42, 48), slice(30, 31), slice(48, 49), slice(54, 55))


@dataclass(frozen=True)
class ExpressionSet:
    """Faces, each with its expression.

    pixels: uint8 (N, height, width) grey or (N, height, width, 3) RGB, an array or decoded when
    asked for. labels_N: int64, places in `classes`. votes_NK: int64, how many people voted for each
    class, where the set has votes. split_N: "train", "validation" or "test"; in CK+ "fold 0" to
    "fold 9". paths: N names. duplicates: how many images were left out because one that is held out
    longer equals them to the pixel.
    """

    pixels: Pixels
    labels_N: NDArray[np.int64]
    votes_NK: NDArray[np.int64] | None
    classes: tuple[str, ...]
    split_N: NDArray[np.str_]
    paths: list[str]
    duplicates: int = 0

    def __len__(self) -> int:
        return len(self.paths)


def read_raf_db(folder: Path) -> ExpressionSet:
    """RAF-DB's basic expressions: list_patition_label.txt and the aligned images, 100 x 100 px RGB.

    folder: `basic` as it is handed out, with EmoLabel and Image/aligned, or one with the list and
    `aligned` themselves. There is no validation part.
    """
    listing = first_there(folder / "EmoLabel", folder, name="list_patition_label.txt")
    files = Files(first_there(folder / "Image", folder, name="aligned"))
    there = set(files.names())
    names, numbers = [], []
    for number, line in enumerate(listing.read_text().splitlines(), 1):
        where, words = f"{listing}, line {number}", line.split()
        if len(words) != 2 or not words[0].startswith(("train_", "test_")):
            raise ValueError(f"{where}: a name and a number are expected, not {line!r}")
        names.append(f"{Path(words[0]).stem}_aligned.jpg")
        numbers.append(numbered(where, words[1], RAF_DB, first=1))
        if names[-1] not in there:
            raise ValueError(f"{where}: {files.place} has no {names[-1]}")
    labels_N, classes = among_classes(numbers, RAF_DB)
    splits = np.array([name.partition("_")[0] for name in names])
    return ExpressionSet(pictures(files, names), labels_N, None, classes, splits, names)


def read_ck_plus(folder: Path, *, frames: Literal["last 3", "peak"] = "last 3") -> ExpressionSet:
    """CK+'s labelled sequences (327 of 593): the last three frames of each, or the last alone.

    folder: with cohn-kanade-images, Emotion and Landmarks, each SUBJECT/SEQUENCE/files. Faces are
    aligned by the set's own 68 landmarks, 112 x 112 px RGB; without Landmarks images are taken as
    they are, which must then be crops of one size. The ten folds are groups of subjects, each tenth
    in the order of their names: nobody is in two.
    """
    images = Files(
        first_there(folder, folder / "extended-cohn-kanade-images", name="cohn-kanade-images")
    )
    by_sequence: dict[str, list[str]] = defaultdict(list)
    for name in files_of_people(images.place):
        by_sequence[name.rpartition("/")[0]].append(name)
    count = {"last 3": 3, "peak": 1}[frames]
    names, numbers = [], []
    for sequence, number in _ck_numbers(folder):
        taken = by_sequence[sequence][-count:]
        if len(taken) < count:
            raise ValueError(f"{images.place} has {len(taken)} of {count} frames of {sequence}")
        names += taken
        numbers += [number] * count
    labels_N, classes = among_classes(numbers, CK_PLUS)
    subjects = sorted({_subject(name) for name in names})
    fold = {subject: f"fold {i % FOLDS}" for i, subject in enumerate(subjects)}
    splits = np.array([fold[_subject(name)] for name in names])
    marks = [p for p in (folder / "Landmarks", folder / "Landmarks" / "Landmarks") if p.is_dir()]
    aligned = _Aligned(images, names, Files(marks[-1])) if marks else None
    pixels = (
        LazyPixels(aligned.picture, len(names), names.__getitem__)
        if aligned
        else pictures(images, names)
    )
    return ExpressionSet(pixels, labels_N, None, classes, splits, names)


def _ck_numbers(folder: Path) -> list[tuple[str, int]]:
    """(sequence, number of its emotion) of the sequences that have one."""
    place = first_there(folder, folder / "Emotion_labels", name="Emotion")
    found: dict[str, int] = {}
    for name in files_of_people(place):
        sequence, text = name.rpartition("/")[0], (place / name).read_text()
        if sequence in found:
            raise ValueError(f"{place}: {sequence} has two labels")
        found[sequence] = numbered(f"{place / name}", text, CK_PLUS, first=1)
    return sorted(found.items())


def _subject(name: str) -> str:
    return name.partition("/")[0]


@dataclass(frozen=True)
class _Aligned:
    """CK+'s frames, aligned by their landmark files."""

    images: Files
    names: list[str]
    landmarks: Files

    def picture(self, i: int) -> NDArray[np.uint8]:
        name = self.names[i]
        marks = f"{name.rpartition('.')[0]}_landmarks.txt"
        text = self.landmarks.read(marks).split()
        if len(text) != 2 * 68:
            raise ValueError(f"{self.landmarks.place / marks} has not 68 points")
        points = np.array(text, np.float64).reshape(68, 2)
        five_52 = np.stack([points[part].mean(axis=0) for part in FIVE_OF_68])
        pixels = decode(self.images.read(name), f"{self.images.place / name}")
        return align_crops(Photograph(pixels), [five_52])[0]


# What the readers share


def first_there(*folders: Path, name: str) -> Path:
    """The first of the folders' file or folder of that name. Raises FileNotFoundError."""
    for folder in folders:
        if (folder / name).exists():
            return folder / name
    raise FileNotFoundError(f"no {name} in {' or '.join(map(str, folders))}")


def numbered(where: str, text: str, meanings: Sequence[str], *, first: int) -> int:
    """The place in `meanings` that a set's own number, from `first` on, stands for."""
    last = first + len(meanings) - 1
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not first <= number <= last or number != int(number):
        raise ValueError(f"{where}: the label is {text.strip()!r}; labels are {first} to {last}")
    return int(number) - first


def among_classes(
    places: Sequence[int], meanings: Sequence[str]
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Labels in the classes' order for places in `meanings`, and those classes."""
    classes = tuple(name for name in CLASSES if name in meanings)
    order = np.array([classes.index(meaning) for meaning in meanings])
    return order[np.array(places, np.int64)], classes


def pictures(files: Files, names: list[str], *, grey: bool = False) -> LazyPixels:
    """The images of those names, decoded when they are asked for."""
    return LazyPixels(_Pictures(files, names, grey).picture, len(names), names.__getitem__)


@dataclass(frozen=True)
class _Pictures:
    files: Files
    names: list[str]
    grey: bool

    def picture(self, i: int) -> NDArray[np.uint8]:
        name = self.names[i]
        return decode(self.files.read(name), f"{self.files.place}: {name}", grey=self.grey)
