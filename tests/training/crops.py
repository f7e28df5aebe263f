"""Small sets of crops made on the spot: every person a colour and a pattern of their own."""

import csv
import zipfile
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.crops import Crops


def drawn_crops(people: int = 3, each: int = 4, side: int = 112) -> Crops:
    """Crops that differ by person: waves of a frequency a person, noise a crop."""
    rng = np.random.default_rng(0)
    x = np.arange(side)
    pixels, labels = [], []
    for person in range(people):
        wave = np.sin(x[:, None] * (person + 1) / 9) + np.cos(x[None] * (person + 2) / 7)
        for _ in range(each):
            noisy = wave[..., None] * 50 + 128 + rng.normal(0, 20, (side, side, 3))
            pixels.append(np.clip(noisy, 0, 255).astype(np.uint8))
            labels.append(person)
    names = [f"p{label}/{i}.png" for i, label in enumerate(labels)]
    return Crops(np.stack(pixels), names, np.array(labels), [f"p{i}" for i in range(people)])


def write_set(crops: Crops, folder: Path, name: str = "set") -> Path:
    """The crops as a csv beside a zip of PNGs, as sets of crops come; returns the csv."""
    path = folder / f"{name}.csv"
    with path.open("w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(["path", "person"])
        for file, label in zip(crops.paths, crops.labels_N, strict=True):
            rows.writerow([file, crops.people[label] if label >= 0 else ""])
    with zipfile.ZipFile(folder / f"{name}.zip", "w") as packed:
        for file, pixels in zip(crops.paths, crops.pixels_NHWC, strict=True):
            packed.writestr(file, png(pixels))
    return path


def png(pixels_rgb: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".png", pixels_rgb[:, :, ::-1])[1].tobytes()
