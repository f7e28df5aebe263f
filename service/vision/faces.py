"""The records that pass between the steps of the way of a photograph.

Geometry everywhere: (x, y) in pixels of the upright photograph (EXIF applied), origin at the top
left corner, x to the right, y down.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Photograph:
    """An upright photograph. pixels_rgb: uint8 (height, width, 3), C-contiguous."""

    pixels_rgb: NDArray[np.uint8]

    @property
    def width(self) -> int:
        return int(self.pixels_rgb.shape[1])

    @property
    def height(self) -> int:
        return int(self.pixels_rgb.shape[0])


@dataclass(frozen=True)
class Box:
    """A face's rectangle in pixels of the upright photograph; it may reach beyond the edges."""

    x: float
    y: float
    width: float
    height: float

    @property
    def area(self) -> float:
        return self.width * self.height


@dataclass(frozen=True)
class Face:
    """A detected face. confidence: O-Net's softmax in [0, 1].

    landmarks_52: float32 (5, 2), (x, y) of left eye, right eye, nose, left and right mouth corner,
    where left is the image's left.
    """

    box: Box
    confidence: float
    landmarks_52: NDArray[np.float32]

    @property
    def inter_eye_px(self) -> float:
        """How far apart the eyes are in the photograph, in pixels."""
        return float(np.hypot(*(self.landmarks_52[1] - self.landmarks_52[0]).astype(np.float64)))
