"""LFW's faces, by the set's own landmarks: crops, and photographs with a noisy expression each.

A test set: nothing is trained or chosen on it."""

import csv
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from service.vision.align import align_crops
from service.vision.faces import Photograph
from training.data.pixels import Files, decode
from training.evaluate.face_size import Face

COORDINATES = ("x1", "y1", "x2", "y2", "x3", "y3", "x4", "y4", "x5", "y5")


def read_crops(folder: Path, names: list[str]) -> NDArray[np.uint8]:
    """Aligned crops uint8 (N, 112, 112, 3) RGB of photos.zip, by landmarks.csv."""
    landmarks = read_landmarks(folder)
    crops = np.empty((len(names), 112, 112, 3), np.uint8)
    with zipfile.ZipFile(folder / "photos.zip") as photos:
        for i, name in enumerate(names):
            bgr = cv2.imdecode(np.frombuffer(photos.read(name), np.uint8), cv2.IMREAD_COLOR)
            photograph = Photograph(np.ascontiguousarray(bgr[:, :, ::-1]))
            crops[i] = align_crops(photograph, [landmarks[name]])[0]
    return crops


def read_landmarks(folder: Path) -> dict[str, NDArray[np.float64]]:
    """The five landmarks (5, 2) of each photograph by its name, in its pixels."""
    with (folder / "landmarks.csv").open(newline="") as rows:
        return {
            row["path"]: np.array([float(row[k]) for k in COORDINATES]).reshape(5, 2)
            for row in csv.DictReader(rows)
        }


def read_expressions(folder: Path, classes: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """Names of photographs and the place of each one's expression in `classes`.

    Raises ValueError, with file and line, for another expression."""
    path = folder / "expressions.csv"
    names, labels = [], []
    with path.open(newline="") as lines:
        rows = csv.DictReader(lines)
        for row in rows:
            if row["expression"] not in classes:
                found = row["expression"]
                raise ValueError(f"{path}, line {rows.line_num}: {found!r} is none of the classes")
            names.append(row["path"])
            labels.append(classes.index(row["expression"]))
    return names, np.array(labels, np.int64)


def faces(folder: Path, names: Sequence[str], *, grey: bool = False) -> Callable[[int], Face]:
    """The photograph and landmarks at a place in `names`, decoded when asked for. grey: without
    its colours, three times the same."""
    files, landmarks = Files(folder / "photos.zip"), read_landmarks(folder)

    def face(i: int) -> Face:
        rgb = decode(files.read(names[i]), names[i])
        if grey:
            rgb = np.repeat(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
        return rgb, landmarks[names[i]]

    return face
