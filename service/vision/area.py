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

STRIP_ROWS = 16  # rows made at a time, so that what lies between two steps stays in the cache

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
        start, end, share = columns.start - left, columns.end - left, columns.shares
        means = np.empty((1, 3, len(rows.start), len(start)), np.float32)
        for top in range(0, len(rows.start), STRIP_ROWS):
            strip = rows[top : top + STRIP_ROWS]
            sums = self._sums[strip.end, left:right]
            sums -= self._sums[strip.start, left:right]
            totals = sums.take(end, axis=1)
            totals -= sums.take(start, axis=1)
            part = means[0, :, top : top + STRIP_ROWS]
            part[...] = totals.transpose(2, 0, 1)
            part *= strip.shares[:, None] * share
        return means

    def crops(self, corners_N4: Integers, side: int) -> Floats:
        """Rectangles of the photograph as squares of `side`, (N, 3, side, side).

        corners_N4: x1, y1, x2, y2, the last two excluded; inside the photograph and not empty.
        """
        x1, y1, x2, y2 = corners_N4.T
        rows, columns = Windows.over(y1, y2, side), Windows.over(0, x2 - x1, side)
        means = np.empty((len(corners_N4), 3, side, side), np.float32)
        for crop, mean in enumerate(means):
            across = slice(x1[crop], x2[crop] + 1)
            sums = self._sums[rows.end[crop], across]
            sums -= self._sums[rows.start[crop], across]
            totals = sums.take(columns.end[crop], axis=1)
            totals -= sums.take(columns.start[crop], axis=1)
            mean[...] = totals.transpose(2, 0, 1)
        means *= (rows.shares[:, :, None] * columns.shares[:, None])[:, None]
        return means
