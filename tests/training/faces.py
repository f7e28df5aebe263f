"""Small sets of faces made on the spot, with an expression or with attributes, and weights for
MobileNet, as their owners hand them out."""

import csv
from pathlib import Path

import cv2
import numpy as np

from training.data.attributes import NAMES, AttributeSet
from training.data.expressions import CLASSES, ExpressionSet
from training.data.pixels import LazyPixels
from training.networks.mobilenet import BLOCKS

PARTS = {
    "train": ("Training", "Train"),
    "validation": ("PublicTest", "Valid"),
    "test": ("PrivateTest", "Test"),
}


def drawn_expressions(each: int = 4, split: str = "train", seed: int = 0) -> ExpressionSet:
    """48 x 48 grey: a bright bar at a height of the class's own over noise, `each` of each class;
    ten votes, seven of them right."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(CLASSES)), each)
    pixels = rng.integers(0, 80, (len(labels), 48, 48), np.uint8)
    for picture, label in zip(pixels, labels, strict=True):
        picture[6 * label : 6 * label + 6] += 150
    votes = np.array([rng.multinomial(3, np.full(8, 1 / 8)) for _ in labels])
    votes[np.arange(len(labels)), labels] += 7
    splits = np.full(len(labels), split)
    names = [f"{split}{i}.png" for i in range(len(labels))]
    return ExpressionSet(pixels, labels, votes, CLASSES, splits, names)


def write_ferplus(folder: Path, *sets: ExpressionSet) -> Path:
    """fer2013new.csv beside the folders of images that FERPlus has."""
    folder.mkdir(parents=True)
    with (folder / "fer2013new.csv").open("w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(["Usage", "Image name", *CLASSES, "unknown", "NF"])
        for faces in sets:
            usage, part = PARTS[str(faces.split_N[0])]
            (folder / f"FER2013{part}").mkdir()
            for pixels, votes, name in zip(faces.pixels, faces.votes_NK, faces.paths, strict=True):
                rows.writerow([usage, name, *votes, 0, 0])
                cv2.imwrite(str(folder / f"FER2013{part}" / name), pixels)
    return folder


def drawn_attributes(count: int = 16, split: str = "train", seed: int = 0) -> AttributeSet:
    """136 x 112 RGB over noise, forty fields of 17 x 16 px: each bright where its attribute is."""
    rng = np.random.default_rng(seed)
    labels = rng.random((count, len(NAMES))) < 0.5
    pixels = rng.integers(0, 60, (count, 136, 112, 3), np.uint8)
    for picture, present in zip(pixels, labels, strict=True):
        for a in np.flatnonzero(present):
            picture[17 * (a // 5) : 17 * (a // 5) + 17, 16 * (a % 5) : 16 * (a % 5) + 16] += 150
    names = [f"{split}{i}.png" for i in range(count)]
    splits = np.full(count, split)
    return AttributeSet(LazyPixels(pixels.__getitem__, count), labels, NAMES, splits, names)


def write_celeba(folder: Path, *sets: AttributeSet) -> Path:
    """attributes.csv beside a folder of crops."""
    (folder / "crops").mkdir(parents=True)
    with (folder / "attributes.csv").open("w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(["path", "split", *NAMES])
        for faces in sets:
            for pixels, labels, name in zip(
                faces.pixels, faces.labels_NA, faces.paths, strict=True
            ):
                rows.writerow([name, faces.split_N[0], *labels.astype(int)])
                cv2.imwrite(str(folder / "crops" / name), pixels[:, :, ::-1])
    return folder


def write_mobilenet(path: Path) -> Path:
    """Random weights under the names that TF-slim gives ImageNet's."""
    rng = np.random.default_rng(0)
    shapes, i = {"Conv2d_0": (3, 3, 3, 32)}, 32
    for block, (o, _) in enumerate(BLOCKS, 1):
        shapes[f"Conv2d_{block}_depthwise"] = (3, 3, i, 1)
        shapes[f"Conv2d_{block}_pointwise"] = (1, 1, i, o)
        i = o
    arrays = {}
    for scope, shape in shapes.items():
        channels = shape[2] if shape[3] == 1 else shape[3]
        deviation = (2 / (np.prod(shape) / channels)) ** 0.5
        arrays[f"{scope}/weights"] = rng.normal(0, deviation, shape).astype(np.float16)
        for name in ("gamma", "moving_variance"):
            arrays[f"{scope}/BatchNorm/{name}"] = np.ones(channels, np.float32)
        for name in ("beta", "moving_mean"):
            arrays[f"{scope}/BatchNorm/{name}"] = np.zeros(channels, np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)
    return path
