"""How far two detectors' findings agree: which faces both have, and how near they are."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from service.vision.faces import Box, Face

SAME = 0.95  # intersection over union from which two boxes are one finding


@dataclass
class Agreement:
    """Findings against those expected; sums up over photographs with `add`.

    overlaps: of the faces in both. landmarks_px: their largest distances along x or y, at the scale
    that makes the expected box 112 px. missed, extra: (photograph, box, confidence, best overlap).
    """

    expected: int = 0
    overlaps: list[float] = field(default_factory=list)
    landmarks_px: list[float] = field(default_factory=list)
    confidences: list[float] = field(default_factory=list)
    missed: list[tuple[str, Box, float, float]] = field(default_factory=list)
    extra: list[tuple[str, Box, float, float]] = field(default_factory=list)

    def add(self, photograph: str, found: Sequence[Face], expected: Sequence[Face]) -> None:
        """Pairs each expected face with the found one that overlaps it most, each taken once."""
        self.expected += len(expected)
        left = list(range(len(found)))
        for face in expected:
            shares = [overlap(found[i].box, face.box) for i in left]
            best = max(shares, default=0.0)
            if best < SAME:
                self.missed.append((photograph, face.box, face.confidence, best))
                continue
            self._pair(found[left.pop(shares.index(best))], face, best)
        for i in left:
            best = max((overlap(found[i].box, face.box) for face in expected), default=0.0)
            self.extra.append((photograph, found[i].box, found[i].confidence, best))

    def _pair(self, found: Face, expected: Face, share: float) -> None:
        self.overlaps.append(share)
        scale = 112 / max(expected.box.width, expected.box.height)
        apart = np.abs(found.landmarks_52 - expected.landmarks_52).max() * scale
        self.landmarks_px.append(float(apart))
        self.confidences.append(abs(found.confidence - expected.confidence))


def overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    width = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
    height = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / (a.area + b.area - shared)


def faces_from_corners(
    boxes: NDArray[np.floating] | Sequence[Sequence[float]] | None,
    confidences: Sequence[float],
    landmarks: NDArray[np.floating] | Sequence[Sequence[Sequence[float]]],
) -> list[Face]:
    """Faces from x1, y1, x2, y2 boxes as facenet-pytorch gives them; None for no face."""
    if boxes is None:
        return []
    return [
        Face(Box(x1, y1, x2 - x1, y2 - y1), float(confidence), np.asarray(points, np.float32))
        for (x1, y1, x2, y2), confidence, points in zip(
            np.asarray(boxes, np.float64).reshape(-1, 4).tolist(),
            confidences,
            landmarks,
            strict=True,
        )
    ]
