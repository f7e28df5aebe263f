"""Faces brought upright to a template by a similarity transform of five landmarks.

Geometry: (x, y) in pixels, origin at the centre of the top left pixel, x right, y down; matrices
are 2 x 3, float64, and map a point of the photograph to one of the crop.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from service.vision.faces import Photograph


@dataclass(frozen=True)
class Canvas:
    """What a crop looks like: its size in pixels and where the five landmarks go, (5, 2)."""

    width: int
    height: int
    template_52: NDArray[np.float64]

    def scaled(self, width: int) -> "Canvas":
        """The canvas with that width, as its crops would be when they are resized."""
        scale = width / self.width
        template_52 = (self.template_52 + 0.5) * scale - 0.5
        return Canvas(width, round(self.height * scale), template_52)


# ArcFace's template (Deng et al. 2019, arXiv:1801.07698): left eye, right eye, nose, left and right
# mouth corner, left being the image's left. The wide canvas shows more around the same face.
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
# The frame of a FERPlus image, in its pixels: means of the landmarks that the detector finds in 923
# of 1,000 images of the training part (benchmarks/expression_framing.py). Networks that learnt
# expressions from those images, at whatever size, see faces framed as they know them.
EXPRESSION_CANVAS = Canvas(
    width=48,
    height=48,
    template_52=np.array(
        [(14.68, 17.73), (32.32, 17.73), (23.5, 27.99), (16.12, 37.15), (30.88, 37.15)]
    ),
)


def align_crops(
    photograph: Photograph,
    landmarks_N52: Sequence[NDArray[Any]],
    canvas: Canvas = IDENTITY_CANVAS,
) -> NDArray[np.uint8]:
    """The aligned RGB crops, uint8 (N, height, width, 3); (0, height, width, 3) without a face.

    landmarks_N52: five (x, y) of each face in pixels of the photograph. Bilinear; what lies outside
    the photograph is black, which was measured to be best (docs/quality.md). One face's crop never
    depends on another's.
    """
    crops = np.zeros((len(landmarks_N52), canvas.height, canvas.width, 3), np.uint8)
    for crop, landmarks_52 in zip(crops, landmarks_N52, strict=True):
        matrix = similarity_transform(landmarks_52, canvas.template_52)
        size = (canvas.width, canvas.height)
        crop[...] = cv2.warpAffine(photograph.pixels_rgb, matrix, size, flags=cv2.INTER_LINEAR)
    return crops


def share_outside(
    photograph: Photograph, landmarks_52: NDArray[Any], canvas: Canvas = IDENTITY_CANVAS
) -> float:
    """The share of the aligned crop's pixels that lie outside the photograph, in [0, 1]."""
    matrix = cv2.invertAffineTransform(similarity_transform(landmarks_52, canvas.template_52))
    x_W, y_H = np.arange(canvas.width), np.arange(canvas.height)[:, None]
    across_HW, down_HW = (a * x_W + (b * y_H + c) for a, b, c in matrix)
    inside_HW = (across_HW >= -0.5) & (across_HW <= photograph.width - 0.5)
    inside_HW &= (down_HW >= -0.5) & (down_HW <= photograph.height - 0.5)
    return 1 - float(inside_HW.mean())


def similarity_transform(src_52: NDArray[Any], dst_52: NDArray[Any]) -> NDArray[np.float64]:
    """The least-squares similarity that takes src onto dst, 2 x 3: rotation, scale, translation.

    Umeyama 1991, IEEE TPAMI 13(4), equations 40-43; never a reflection. Points that all coincide
    have no rotation and no scale: they are moved alone. ValueError for a coordinate not finite.
    """
    src, dst = np.asarray(src_52, np.float64), np.asarray(dst_52, np.float64)
    if not (np.isfinite(src).all() and np.isfinite(dst).all()):
        raise ValueError("a landmark is not a finite number")
    src_mean, dst_mean = src.mean(axis=0), dst.mean(axis=0)
    src, dst = src - src_mean, dst - dst_mean
    variance = (src**2).sum() / len(src)
    if variance < 1e-12:
        return np.hstack([np.eye(2), (dst_mean - src_mean)[:, None]])
    u, d, vt = np.linalg.svd(dst.T @ src / len(src))
    mirror = np.array([1.0, -1.0 if np.linalg.det(u @ vt) < 0 else 1.0])
    linear = (d * mirror).sum() / variance * (u * mirror) @ vt
    return np.hstack([linear, (dst_mean - linear @ src_mean)[:, None]])
