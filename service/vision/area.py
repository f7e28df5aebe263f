"""Resizing by the mean over windows of pixels: any scale and any crop from one integral image.

Window i of n over [a, b) is [a + floor(i L / n), a + ceil((i + 1) L / n)), L = b - a, as in torch's
adaptive average pooling: windows overlap, each of their pixels counts alike, and enlarging repeats
pixels. cv2.INTER_AREA gives pixels at a window's edge a part only; MTCNN's findings tell the two
apart (docs/detection.md).
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from service.vision.faces import Photograph

Integers = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Windows:
    """Ranges of pixels along one axis, int64 (..., n): first ones, and last ones plus one."""

    start: Integers
    end: Integers

    @classmethod
    def over(cls, start: Any, end: Any, count: int) -> "Windows":
        """`count` windows over [start, end); of arrays (N,) of these, (N, count)."""
        begin, length = np.asarray(start)[..., None], np.asarray(end - start)[..., None]
        index = np.arange(count)
        return cls(begin + index * length // count, begin - (-(index + 1) * length // count))

    def __getitem__(self, part: slice) -> "Windows":
        return Windows(self.start[part], self.end[part])

    @property
    def shares(self) -> Floats:
        """A pixel's part in its window's mean."""
        return (1 / (self.end - self.start)).astype(np.float32)


class AreaMeans:
    """The means of a photograph over any windows; 12 bytes of memory for each of its pixels."""

    def __init__(self, photograph: Photograph) -> None:
        self.height, self.width = photograph.height, photograph.width
        # Past 8 Mpx of white int32 wraps round; a difference over one window still comes out right.
        self._sums = cv2.integral(photograph.pixels_rgb, sdepth=cv2.CV_32S)

    def grid(self, rows: Windows, columns: Windows) -> Floats:
        """The means over rows x columns, (1, 3, rows, columns), in the photograph's values."""
        left, right = int(columns.start[0]), int(columns.end[-1]) + 1
        strips = self._sums[rows.end, left:right] - self._sums[rows.start, left:right]
        totals = strips.take(columns.end - left, axis=1)
        totals -= strips.take(columns.start - left, axis=1)
        means: Floats = totals.transpose(2, 0, 1).astype(np.float32)
        means *= rows.shares[:, None] * columns.shares
        return means[None]

    def crops(self, corners_N4: Integers, side: int) -> Floats:
        """Rectangles of the photograph as squares of `side`, (N, 3, side, side).

        corners_N4: x1, y1, x2, y2, the last two excluded; inside the photograph and not empty.
        """
        x1, y1, x2, y2 = corners_N4.T
        rows, columns = Windows.over(y1, y2, side), Windows.over(x1, x2, side)
        y = np.concatenate([rows.start, rows.end], axis=1) * (self.width + 1)
        x = np.concatenate([columns.start, columns.end], axis=1)
        sums = self._sums.reshape(-1, 3).take(y[:, :, None] + x[:, None], axis=0)
        strips = sums[:, side:] - sums[:, :side]
        totals = strips[:, :, side:] - strips[:, :, :side]
        means: Floats = totals.transpose(0, 3, 1, 2).astype(np.float32)
        means *= (rows.shares[:, :, None] * columns.shares[:, None])[:, None]
        return means
