"""Drawn photographs: squares of coloured blocks stand for faces, a magenta frame around each.

A person is the seed of their blocks; a take of them differs a little from the next. `find_drawn`
is the detector for them: it gives a square's landmarks where the template has them, so that its
aligned crop is the square.
"""

import io

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.vision.align import IDENTITY_CANVAS
from service.vision.faces import Box, Face, Photograph

FRAME_RGB = (255, 0, 255)
_BLOCKS = 7


def drawn_square(person: int, take: int = 0, side: int = 112) -> NDArray[np.uint8]:
    """A face: uint8 (side, side, 3)."""
    blocks = np.random.default_rng(person).integers(20, 220, (_BLOCKS, _BLOCKS, 3))
    noise = np.random.default_rng((person, take)).integers(-8, 9, blocks.shape)
    return cv2.resize(
        (blocks + noise).astype(np.uint8), (side, side), interpolation=cv2.INTER_NEAREST
    )


def drawn_photo(
    *people: int, take: int = 0, sides: tuple[int, ...] = (), size: tuple[int, int] = (640, 480)
) -> bytes:
    """A PNG with a face of each person side by side, on grey. sides: in px, 112 unless given."""
    width, height = size
    photo = np.full((height, width, 3), 128, np.uint8)
    x = 16
    for index, person in enumerate(people):
        side = sides[index] if sides else 112
        photo[16 : 22 + side, x : x + side + 6] = FRAME_RGB
        photo[19 : 19 + side, x + 3 : x + 3 + side] = drawn_square(person, take, side)
        x += side + 12
    return png(photo)


def png(pixels_rgb: NDArray[np.uint8]) -> bytes:
    """The pixels as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels_rgb).save(file, "PNG", compress_level=1)
    return file.getvalue()


def find_drawn(photograph: Photograph, min_face_px: int) -> list[Face]:
    """The drawn faces, largest first."""
    framed = (photograph.pixels_rgb == FRAME_RGB).all(axis=2).astype(np.uint8)
    count, _, stats, _ = cv2.connectedComponentsWithStats(framed)
    faces = []
    for x, y, width, height, _ in stats[1:count].tolist():
        side = width - 6
        if width == height and side >= min_face_px:
            landmarks = IDENTITY_CANVAS.template_52 * side / 112 + (x + 3, y + 3)
            box = Box(x + 3.0, y + 3.0, float(side), float(side))
            faces.append(Face(box, 0.999, landmarks.astype(np.float32)))
    return sorted(faces, key=lambda face: -face.box.area)
