"""How small a face may be: what a network answers to faces that are made smaller and brought to its
crop again, as the service brings small faces to it.

The size of a face is the distance between its eyes in pixels of the photograph, by the landmarks.
Where a set has crops in place of photographs, the crop is the photograph and its landmarks are the
canvas's own."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from service.vision.align import Canvas, align_crops
from service.vision.faces import Photograph
from training.data.pixels import LazyPixels, Pixels

SIZES_PX = (6, 8, 10, 12, 14, 16, 20, 24, 28, 40)
WITHIN = 0.05  # of the figure at full size: how much a face's size may cost at most
Face = tuple[NDArray[np.uint8], NDArray[np.float64]]  # photograph (H, W, 3) RGB, landmarks (5, 2)


def inter_eye_px(landmarks_52: NDArray[np.floating]) -> float:
    """The distance between the eyes, in the landmarks' own pixels."""
    return float(np.linalg.norm(landmarks_52[1] - landmarks_52[0]))


def at_size(face: Face, canvas: Canvas, size_px: float | None) -> NDArray[np.uint8]:
    """The face's crop, uint8 (height, width, 3), after its photograph was made so small (by area)
    that the eyes are size_px apart; None, or more than they are, leaves the photograph."""
    photograph_rgb, landmarks_52 = face
    share = 1.0 if size_px is None else size_px / inter_eye_px(landmarks_52)
    if share < 1:
        height, width = photograph_rgb.shape[:2]
        small = (max(1, round(width * share)), max(1, round(height * share)))
        photograph_rgb = cv2.resize(photograph_rgb, small, interpolation=cv2.INTER_AREA)
        # Landmarks count from the centre of the first pixel, sizes from its edge.
        landmarks_52 = (landmarks_52 + 0.5) * (small[0] / width, small[1] / height) - 0.5
    return align_crops(Photograph(photograph_rgb), [landmarks_52], canvas)[0]


def crops_at_size(
    face: Callable[[int], Face], count: int, canvas: Canvas, size_px: float | None = None
) -> LazyPixels:
    """The crops of `count` faces, each as at_size makes it, when it is asked for."""
    return LazyPixels(lambda i: at_size(face(i), canvas, size_px), count)


def faces_of_crops(pixels: Pixels, landmarks_52: NDArray[np.floating]) -> Callable[[int], Face]:
    """Crops (N, H, W, 3), or (N, H, W) grey, as photographs that all have the same landmarks, their
    edges repeated a quarter of their width farther."""
    margin = pixels.shape[2] // 4

    def face(i: int) -> Face:
        picture = pixels[i]
        rgb = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
        return cv2.copyMakeBorder(rgb, *[margin] * 4, cv2.BORDER_REPLICATE), landmarks_52 + margin

    return face


def smallest_size(
    by_size: Sequence[Mapping[str, Any]], figure: str, *, within: float = WITHIN
) -> float:
    """The smallest size from which on the figure stays within `within` of that at full size, which
    is the full size itself where every smaller one costs more.

    by_size: rows of size_curve."""
    full = by_size[-1]
    smallest = full
    for row in reversed(by_size):
        if row[figure] < full[figure] - within:
            break
        smallest = row
    return float(smallest["inter_eye_px"])


def size_curve(
    face: Callable[[int], Face],
    count: int,
    canvas: Canvas,
    measure: Callable[[Pixels], dict[str, float]],
    *,
    sizes_px: Sequence[float] = SIZES_PX,
) -> list[dict[str, Any]]:
    """What `measure` says of the faces' crops at each size at which most faces are made smaller,
    and as they are; each row with its `inter_eye_px`, in the last the median of what they have.

    sizes_px: rising; those above 0.95 of the median are left out."""
    places = np.linspace(0, count - 1, min(count, 200)).astype(int)
    full = float(np.median([inter_eye_px(face(int(i))[1]) for i in places]))
    rows = [
        {"inter_eye_px": float(size), **measure(crops_at_size(face, count, canvas, size))}
        for size in sizes_px
        if size < full * 0.95
    ]
    return [
        *rows,
        {"inter_eye_px": round(full, 1), **measure(crops_at_size(face, count, canvas))},
    ]
