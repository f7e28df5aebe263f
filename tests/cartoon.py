"""Cartoon faces that the real detector finds: pictures of nobody, for tests that run everywhere."""

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

BACKGROUND = (120, 140, 160)
# Where the drawing has the five landmarks, in shares of its side.
LANDMARKS_52 = np.array([(0.39, 0.48), (0.61, 0.48), (0.5, 0.64), (0.4, 0.75), (0.6, 0.75)])


def cartoon_face(side_px: int) -> NDArray[np.uint8]:
    """A square RGB picture of a face, uint8 (side, side, 3); found from about 50 px on."""
    picture = np.full((side_px, side_px, 3), BACKGROUND, np.uint8)
    scale = side_px / 200

    def ellipse(x: int, y: int, across: int, down: int, colour: tuple[int, int, int]) -> None:
        centre, axes = ((round(a * scale), round(b * scale)) for a, b in ((x, y), (across, down)))
        cv2.ellipse(picture, centre, axes, 0, 0, 360, colour, -1, cv2.LINE_AA)

    ellipse(100, 92, 62, 80, (60, 40, 30))  # hair
    ellipse(100, 108, 52, 70, (224, 180, 150))  # skin
    ellipse(100, 52, 50, 22, (60, 40, 30))  # fringe
    for x in (78, 122):
        ellipse(x, 96, 13, 7, (245, 245, 245))
        ellipse(x, 96, 6, 7, (70, 50, 40))
        ellipse(x, 82, 15, 4, (70, 45, 35))  # brow
    ellipse(100, 124, 5, 18, (205, 160, 130))  # nose
    for x in (94, 106):
        ellipse(x, 134, 4, 3, (150, 100, 85))
    ellipse(100, 150, 22, 7, (180, 80, 80))  # mouth
    ellipse(100, 149, 20, 2, (120, 50, 50))
    return cv2.GaussianBlur(picture, (0, 0), max(0.6, 1.5 * scale))


def cartoon_photograph(
    faces: Iterable[tuple[int, int, int]], *, width: int = 640, height: int = 480
) -> NDArray[np.uint8]:
    """An RGB picture with a face for each (x, y, side) of its drawing's top left corner."""
    picture = np.full((height, width, 3), BACKGROUND, np.uint8)
    for x, y, side in faces:
        picture[y : y + side, x : x + side] = cartoon_face(side)
    return picture
