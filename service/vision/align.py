"""Faces brought upright to a template by a similarity transform of five landmarks.

Geometry: (x, y) in pixels, origin at the centre of the top left pixel, x right, y down; matrices
are 2 x 3 and map photograph to crop.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.vision.faces import Photograph


@dataclass(frozen=True)
class Canvas:
    """What a crop looks like: its size in pixels and where the five landmarks go, (5, 2)."""

    width: int
    height: int
    template_52: NDArray[np.float64]


_ARCFACE_52 = np.array(
    [
        (38.2946, 51.6963),
        (73.5318, 51.5014),
        (56.0252, 71.7366),
        (41.5493, 92.3655),
        (70.7299, 92.2041),
    ]
)
IDENTITY_CANVAS = Canvas(width=112, height=112, template_52=_ARCFACE_52)
WIDE_CANVAS = Canvas(width=112, height=136, template_52=_ARCFACE_52 * 0.68 + (18, 33))


def similarity_transform(
    src_52: NDArray[np.floating], dst_52: NDArray[np.floating]
) -> NDArray[np.float64]:
    """The least-squares similarity (Umeyama 1991) that takes src to dst, 2 x 3."""
    raise NotImplementedError


def align_crops(
    photograph: Photograph,
    landmarks_N52: Sequence[NDArray[np.floating]],
    canvas: Canvas = IDENTITY_CANVAS,
) -> NDArray[np.uint8]:
    """The aligned RGB crops, uint8 (N, height, width, 3); (0, height, width, 3) without a face."""
    raise NotImplementedError
