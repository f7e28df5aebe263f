"""LFW's faces, by the set's own landmarks: crops, and photographs with a noisy expression each.

A test set: nothing is trained or chosen on it."""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from service.vision.align import align_crops
from service.vision.faces import Photograph
from training.data.listing import rows
from training.data.pixels import Files, decode
from training.evaluate.face_size import Face

COORDINATES = ("x1", "y1", "x2", "y2", "x3", "y3", "x4", "y4", "x5", "y5")


def read_crops(folder: Path, names: list[str]) -> NDArray[np.uint8]:
    """Aligned crops uint8 (N, 112, 112, 3) RGB of photos.zip, by landmarks.csv."""
    face = faces(folder, names)
    crops = np.empty((len(names), 112, 112, 3), np.uint8)
    for i in range(len(names)):
        rgb, landmarks_52 = face(i)
        crops[i] = align_crops(Photograph(rgb), [landmarks_52])[0]
    return crops


def read_landmarks(folder: Path) -> dict[str, NDArray[np.float64]]:
    """The five landmarks (5, 2) of each photograph by its name, in its pixels."""
    return {
        row["path"]: np.array([float(row[k]) for k in COORDINATES]).reshape(5, 2)
        for _, row in rows(folder / "landmarks.csv", ("path", *COORDINATES))
    }


def read_expressions(folder: Path, classes: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """Names of photographs and the place of each one's expression in `classes`.

    Raises ValueError, with file and line, for another expression."""
    path = folder / "expressions.csv"
    names, labels = [], []
    for where, row in rows(path, ("path", "expression")):
        if row["expression"] not in classes:
            raise ValueError(f"{where}: {row['expression']!r} is none of the classes")
        names.append(row["path"])
        labels.append(classes.index(row["expression"]))
    return names, np.array(labels, np.int64)


def faces(folder: Path, names: Sequence[str], *, grey: bool = False) -> Callable[[int], Face]:
    """The photograph and landmarks at a place in `names`, decoded when asked for. grey: without
    its colours, three times the same. Raises ValueError, at once, for a name without landmarks and,
    when it is asked for, for a photograph that is absent or broken."""
    files, landmarks = Files(folder / "photos.zip"), read_landmarks(folder)
    if absent := next((name for name in names if name not in landmarks), None):
        raise ValueError(f"{folder / 'landmarks.csv'} has no {absent}")

    def face(i: int) -> Face:
        rgb = decode(files.read(names[i]), names[i])
        if grey:
            rgb = np.repeat(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
        return rgb, landmarks[names[i]]

    return face
