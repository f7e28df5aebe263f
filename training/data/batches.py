"""Batches of crops: which crops a step sees, and how each is changed.

All of it follows from (seed, step), so that a resumed run sees exactly what an unbroken one would.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Batch:
    """pixels_NHWC: uint8 (n, H, W, 3) RGB; indices_N: int64, the crops' places in their set."""

    pixels_NHWC: NDArray[np.uint8]
    indices_N: NDArray[np.int64]


def batches(
    pixels_NHWC: NDArray[np.uint8], *, size: int, start: int, stop: int, seed: int
) -> Iterator[tuple[int, Batch]]:
    """(step, batch) for steps start <= step < stop; the next batch is made while one is used."""

    def make(step: int) -> Batch:
        indices = _indices(len(pixels_NHWC), size, step, seed)
        rng = np.random.default_rng((seed, step))
        return Batch(np.stack([augment(pixels_NHWC[i], rng) for i in indices]), indices)

    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(make, start)
        for step in range(start, stop):
            batch = coming.result()
            if step + 1 < stop:
                coming = pool.submit(make, step + 1)
            yield step, batch


def _indices(count: int, size: int, step: int, seed: int) -> NDArray[np.int64]:
    """The step's part of an endless row of permutations; batches may reach over two of them."""
    places = np.arange(step * size, (step + 1) * size)
    epochs = places // count
    orders = {e: np.random.default_rng((seed, 1 << 40, e)).permutation(count) for e in set(epochs)}
    return np.array([orders[e][p] for e, p in zip(epochs, places % count, strict=True)])


def augment(crop_rgb: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """The crop mirrored half of the time, and sometimes as the service may meet it.

    Landmarks a little off (a small similarity), another light, few pixels, JPEG's blocks, no
    colour. Mild on purpose: the teacher's answer is that for the untouched crop."""
    if rng.random() < 0.5:
        crop_rgb = crop_rgb[:, ::-1]
    if rng.random() < 0.3:
        crop_rgb = _moved(crop_rgb, rng)
    if rng.random() < 0.2:
        gain, offset = rng.uniform(0.6, 1.3), rng.uniform(-25, 25)
        crop_rgb = np.clip(crop_rgb * np.float32(gain) + np.float32(offset), 0, 255)
        crop_rgb = crop_rgb.astype(np.uint8)
    if rng.random() < 0.1:
        height, width = crop_rgb.shape[:2]
        small = rng.integers(width // 4, width)
        shrunk = cv2.resize(
            np.ascontiguousarray(crop_rgb),
            (small, small * height // width),
            interpolation=cv2.INTER_AREA,
        )
        crop_rgb = cv2.resize(shrunk, (width, height), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.1:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(20, 80))]
        crop_rgb = cv2.imdecode(cv2.imencode(".jpg", crop_rgb, quality)[1], cv2.IMREAD_COLOR)
    if rng.random() < 0.05:
        crop_rgb = cv2.cvtColor(
            cv2.cvtColor(np.ascontiguousarray(crop_rgb), cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB
        )
    return crop_rgb


def _moved(crop_rgb: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    height, width = crop_rgb.shape[:2]
    turn = cv2.getRotationMatrix2D(
        (width / 2, height / 2), rng.uniform(-8, 8), rng.uniform(0.93, 1.07)
    )
    turn[:, 2] += rng.uniform(-3, 3, 2)
    return cv2.warpAffine(
        crop_rgb, turn, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
