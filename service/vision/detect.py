"""Faces in a photograph, by MTCNN's three networks (Zhang et al. 2016, arXiv:1604.02878)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.vision.faces import Face, Photograph

Network = Callable[[NDArray[np.float32]], list[NDArray[Any]]]


@dataclass(frozen=True)
class Cascade:
    """The three networks, each a callable on float32 NCHW pixel values in [0, 255], RGB.

    pnet: (N, 3, H, W) -> boxes (N, 4, h, w), scores (N, 2, h, w).
    rnet: (N, 3, 24, 24) -> boxes (N, 4), scores (N, 2).
    onet: (N, 3, 48, 48) -> boxes (N, 4), landmarks (N, 10), scores (N, 2).
    """

    pnet: Network
    rnet: Network
    onet: Network


def detect_faces(photograph: Photograph, cascade: Cascade, *, min_face_px: int = 20) -> list[Face]:
    """The faces of a photograph, largest first; an empty list where there is none."""
    raise NotImplementedError
