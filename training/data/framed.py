"""Pictures of any size, grey or RGB, as crops of the one size that a network takes."""

from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.pixels import LazyPixels, Pixels


def framed(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """The pictures as uint8 (N, *size, 3) RGB, each made when it is asked for.

    A picture is scaled, its shape kept, until it just covers size (height, width), and cut about
    its centre; grey stands three times. Pictures that are so already are passed through."""
    if pixels.shape[1:] == (*size, 3):
        return pixels
    return LazyPixels(partial(_frame_at, pixels, size), len(pixels))


def frame(picture: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """One picture as `framed` makes it."""
    (height, width), (tall, wide) = size, picture.shape[:2]
    scale = max(height / tall, width / wide)
    if scale != 1:
        larger = (max(width, round(wide * scale)), max(height, round(tall * scale)))
        way = cv2.INTER_LINEAR if scale > 1 else cv2.INTER_AREA
        picture = cv2.resize(picture, larger, interpolation=way)
    top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
    cut = picture[top : top + height, left : left + width]
    return cut if cut.ndim == 3 else np.repeat(cut[..., None], 3, axis=2)


def _frame_at(pixels: Pixels, size: tuple[int, int], i: int) -> NDArray[np.uint8]:
    return frame(pixels[i], size)
