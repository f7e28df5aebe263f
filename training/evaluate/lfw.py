"""LFW's crops, aligned by the set's own landmarks.

A test set: nothing is trained or chosen on it."""

import csv
import zipfile
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from service.vision.align import align_crops
from service.vision.faces import Photograph


def read_crops(folder: Path, names: list[str]) -> NDArray[np.uint8]:
    """Aligned crops uint8 (N, 112, 112, 3) RGB of photos.zip, by landmarks.csv."""
    keys = ("x1", "y1", "x2", "y2", "x3", "y3", "x4", "y4", "x5", "y5")
    with (folder / "landmarks.csv").open(newline="") as rows:
        landmarks = {
            row["path"]: np.array([float(row[k]) for k in keys]).reshape(5, 2)
            for row in csv.DictReader(rows)
        }
    crops = np.empty((len(names), 112, 112, 3), np.uint8)
    with zipfile.ZipFile(folder / "photos.zip") as photos:
        for i, name in enumerate(names):
            bgr = cv2.imdecode(np.frombuffer(photos.read(name), np.uint8), cv2.IMREAD_COLOR)
            photograph = Photograph(np.ascontiguousarray(bgr[:, :, ::-1]))
            crops[i] = align_crops(photograph, [landmarks[name]])[0]
    return crops
