"""How a crop is changed before a step sees it: levels from nothing to all that the service meets.

Each level is a function of (crop uint8 (H, W, 3) RGB, generator) to a crop of the same shape and
type; the crop itself is left alone.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Crop = NDArray[np.uint8]
Rng = np.random.Generator


def untouched(crop_rgb: Crop, rng: Rng) -> Crop:
    return crop_rgb


def flip(crop_rgb: Crop, rng: Rng) -> Crop:
    """Mirrored half of the time: the papers' only augmentation."""
    return crop_rgb[:, ::-1] if rng.random() < 0.5 else crop_rgb


def mild(crop_rgb: Crop, rng: Rng) -> Crop:
    """Flipped, and now and then the landmarks a little off (a small similarity), another light, few
    pixels, JPEG's blocks, no colour.

    Mild on purpose: a teacher's answer is that for the untouched crop."""
    crop_rgb = flip(crop_rgb, rng)
    if rng.random() < 0.3:
        crop_rgb = _moved(crop_rgb, rng, turn=8, scale=0.07, shift=3)
    if rng.random() < 0.2:
        crop_rgb = _lit(crop_rgb, rng, gains=(0.6, 1.3), offset=25)
    if rng.random() < 0.1:
        crop_rgb = _shrunk(crop_rgb, rng, smallest=4)
    if rng.random() < 0.1:
        crop_rgb = _packed(crop_rgb, rng, qualities=(20, 80))
    if rng.random() < 0.05:
        crop_rgb = _grey(crop_rgb)
    return crop_rgb


def strong(crop_rgb: Crop, rng: Rng) -> Crop:
    """As mild, but further and more often, and also out of focus or moved, dark with the sensor's
    noise, and partly hidden."""
    crop_rgb = flip(crop_rgb, rng)
    if rng.random() < 0.5:
        crop_rgb = _moved(crop_rgb, rng, turn=20, scale=0.15, shift=6)
    if rng.random() < 0.2:
        crop_rgb = _hidden(crop_rgb, rng)
    if rng.random() < 0.2:
        crop_rgb = _blurred(crop_rgb, rng)
    if rng.random() < 0.3:
        crop_rgb = _lit(crop_rgb, rng, gains=(0.25, 1.5), offset=30)
    if rng.random() < 0.15:
        crop_rgb = _noisy(crop_rgb, rng)
    if rng.random() < 0.2:
        crop_rgb = _shrunk(crop_rgb, rng, smallest=6)
    if rng.random() < 0.2:
        crop_rgb = _packed(crop_rgb, rng, qualities=(10, 80))
    if rng.random() < 0.1:
        crop_rgb = _grey(crop_rgb)
    return crop_rgb


def tinted(crop_rgb: Crop, rng: Rng) -> Crop:
    """As strong, and half of the time each colour by a curve of its own: what is learnt from grey
    pictures must hold for those in colour."""
    crop_rgb = strong(crop_rgb, rng)
    return _tinted(crop_rgb, rng) if rng.random() < 0.5 else crop_rgb


def served(crop_rgb: Crop, rng: Rng) -> Crop:
    """As the service meets faces: mirrored, misaligned, turned away, cut by the photograph's edge,
    partly hidden, blurred, dark, noisy, small and scaled up, packed by JPEG, with a colour cast.

    One or two of these on average; for a teacher that is asked about the very crop that comes
    out."""
    crop_rgb = flip(crop_rgb, rng)
    if rng.random() < 0.3:
        crop_rgb = _moved(crop_rgb, rng, turn=10, scale=0.1, shift=4)
    if rng.random() < 0.12:
        crop_rgb = _turned_away(crop_rgb, rng)
    if rng.random() < 0.15:
        crop_rgb = _lit(crop_rgb, rng, gains=(0.3, 1.4), offset=25)
    if rng.random() < 0.1:
        crop_rgb = _tinted(crop_rgb, rng)
    if rng.random() < 0.05:
        crop_rgb = _hidden(crop_rgb, rng)
    if rng.random() < 0.07:
        crop_rgb = _blurred(crop_rgb, rng)
    if rng.random() < 0.12:
        crop_rgb = _shrunk(crop_rgb, rng, smallest=5)
    if rng.random() < 0.06:
        crop_rgb = _noisy(crop_rgb, rng)
    if rng.random() < 0.12:
        crop_rgb = _packed(crop_rgb, rng, qualities=(15, 80))
    if rng.random() < 0.03:
        crop_rgb = _grey(crop_rgb)
    if rng.random() < 0.1:  # last: what lies beyond the edge was never photographed
        crop_rgb = _cut(crop_rgb, rng)
    return crop_rgb


def contrast(crop_rgb: Crop, rng: Rng) -> Crop:
    """Flipped, and the contrast 0.7 to 1.3 times as large: PAtt-Lite's augmentation."""
    crop_rgb = flip(crop_rgb, rng)
    mean = crop_rgb.mean((0, 1), dtype=np.float32)
    changed = (crop_rgb - mean) * np.float32(rng.uniform(0.7, 1.3)) + mean
    return np.clip(changed, 0, 255).astype(np.uint8)


def cropped(crop_rgb: Crop, rng: Rng) -> Crop:
    """Flipped, turned by up to 10 degrees, and 0.8 to 1 of its area at 3:4 to 4:3 drawn out to the
    whole: what is read into HSANet's text."""
    crop_rgb = _moved(flip(crop_rgb, rng), rng, turn=10, scale=0, shift=0)
    height, width = crop_rgb.shape[:2]
    share, ratio = rng.uniform(0.8, 1), np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
    wide = min(width, round(width * (share * ratio) ** 0.5))
    tall = min(height, round(height * (share / ratio) ** 0.5))
    top, left = rng.integers(0, height - tall + 1), rng.integers(0, width - wide + 1)
    return cv2.resize(crop_rgb[top : top + tall, left : left + wide], (width, height))


LEVELS: dict[str, Callable[[Crop, Rng], Crop]] = {
    "none": untouched,
    "flip": flip,
    "mild": mild,
    "strong": strong,
    "tinted": tinted,
    "served": served,
    "contrast": contrast,
    "cropped": cropped,
}


def _moved(crop_rgb: Crop, rng: Rng, *, turn: float, scale: float, shift: float) -> Crop:
    """Turned by up to `turn` degrees, scaled by 1 +- scale, moved by up to `shift` pixels."""
    height, width = crop_rgb.shape[:2]
    matrix = cv2.getRotationMatrix2D(
        (width / 2, height / 2), rng.uniform(-turn, turn), rng.uniform(1 - scale, 1 + scale)
    )
    matrix[:, 2] += rng.uniform(-shift, shift, 2)
    return cv2.warpAffine(
        crop_rgb, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )


def _turned_away(crop_rgb: Crop, rng: Rng) -> Crop:
    """As a plane that is turned by up to 35 degrees to a side and 20 up or down is seen from four
    widths away: the nearer half grows, the farther one shrinks."""
    height, width = crop_rgb.shape[:2]
    yaw, pitch = np.radians(rng.uniform(-35, 35)), np.radians(rng.uniform(-20, 20))
    corners = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
    depth = corners[:, 0] * np.sin(yaw) + corners[:, 1] * np.sin(pitch)
    seen = corners * (np.cos(yaw), np.cos(pitch)) * (4 / (4 + depth))[:, None]
    size = np.array([width, height])
    matrix = cv2.getPerspectiveTransform(
        ((corners + 0.5) * size).astype(np.float32), ((seen + 0.5) * size).astype(np.float32)
    )
    return cv2.warpPerspective(
        crop_rgb, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )


def _cut(crop_rgb: Crop, rng: Rng) -> Crop:
    """Cut by a straight edge of the photograph, within 25 degrees of a side of the crop and up to
    0.35 of its width from it; beyond lies black (two thirds of the time), the mirror image of what
    is before the edge, or the edge's own pixels."""
    height, width = crop_rgb.shape[:2]
    angle = np.radians(90 * rng.integers(4) + rng.uniform(-25, 25))
    normal = np.array([np.cos(angle), np.sin(angle)], np.float32)
    reach = (0.5 - rng.uniform(0.0, 0.35)) * width
    y, x = np.mgrid[:height, :width].astype(np.float32)
    beyond = (x - width / 2) * normal[0] + (y - height / 2) * normal[1] - np.float32(reach)
    beyond = np.maximum(beyond, 0)
    kind = rng.random()
    if kind < 2 / 3:
        return crop_rgb * (beyond == 0)[..., None]
    back = beyond * (2 if kind < 5 / 6 else 1)
    return cv2.remap(
        crop_rgb,
        x - back * normal[0],
        y - back * normal[1],
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT,
    )


def _lit(crop_rgb: Crop, rng: Rng, *, gains: tuple[float, float], offset: float) -> Crop:
    gain, level = rng.uniform(*gains), rng.uniform(-offset, offset)
    values = np.clip(np.arange(256) * gain + level, 0, 255).astype(np.uint8)
    return cv2.LUT(np.ascontiguousarray(crop_rgb), values)


def _shrunk(crop_rgb: Crop, rng: Rng, *, smallest: int) -> Crop:
    """As if the face had been down to 1 / smallest as wide."""
    height, width = crop_rgb.shape[:2]
    small = int(rng.integers(width // smallest, width))
    size = (small, max(1, small * height // width))
    shrunk = cv2.resize(np.ascontiguousarray(crop_rgb), size, interpolation=cv2.INTER_AREA)
    return cv2.resize(shrunk, (width, height), interpolation=cv2.INTER_LINEAR)


def _packed(crop_rgb: Crop, rng: Rng, *, qualities: tuple[int, int]) -> Crop:
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(*qualities))]
    return cv2.imdecode(cv2.imencode(".jpg", crop_rgb, quality)[1], cv2.IMREAD_COLOR)


def _grey(crop_rgb: Crop) -> Crop:
    grey = cv2.cvtColor(np.ascontiguousarray(crop_rgb), cv2.COLOR_RGB2GRAY)
    return cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)


def _tinted(crop_rgb: Crop, rng: Rng) -> Crop:
    """255 gain (p / 255) ** power of each pixel, with a gain and a power a colour."""
    powers, gains = rng.uniform(0.7, 1.4, 3), rng.uniform(0.75, 1.25, 3)
    curves = np.linspace(0, 1, 256)[:, None] ** powers * gains * 255
    table = np.clip(curves, 0, 255).astype(np.uint8)
    return cv2.LUT(np.ascontiguousarray(crop_rgb), table[:, None])


def _blurred(crop_rgb: Crop, rng: Rng) -> Crop:
    """Out of focus (a Gaussian of up to 2.5 pixels) or moved (along a line of up to 11)."""
    if rng.random() < 0.5:
        return cv2.GaussianBlur(crop_rgb, (0, 0), rng.uniform(0.5, 2.5))
    length = int(rng.integers(3, 12))
    line = np.zeros((length, length), np.float32)
    line[length // 2] = 1
    centre = ((length - 1) / 2, (length - 1) / 2)
    turned = cv2.getRotationMatrix2D(centre, rng.uniform(0, 180), 1)
    kernel = cv2.warpAffine(line, turned, (length, length))
    return cv2.filter2D(crop_rgb, -1, kernel / kernel.sum())


def _noisy(crop_rgb: Crop, rng: Rng) -> Crop:
    noise = rng.standard_normal(crop_rgb.shape, np.float32) * np.float32(rng.uniform(3, 15))
    return np.clip(crop_rgb + noise, 0, 255).astype(np.uint8)


def _hidden(crop_rgb: Crop, rng: Rng) -> Crop:
    """A rectangle of one colour over a twentieth to a quarter of the crop: hand, mask, hair."""
    height, width = crop_rgb.shape[:2]
    area, ratio = rng.uniform(0.05, 0.25) * height * width, rng.uniform(0.4, 2.5)
    tall, wide = min(height, int((area * ratio) ** 0.5)), min(width, int((area / ratio) ** 0.5))
    top, left = rng.integers(0, height - tall + 1), rng.integers(0, width - wide + 1)
    hidden = crop_rgb.copy()
    hidden[top : top + tall, left : left + wide] = rng.integers(0, 256, 3)
    return hidden
