"""How a head is turned, from its five landmarks.

Angles in degrees of the head against the camera's axis, as the photograph shows it:

- yaw: positive where the nose turns to the right of the image, the head's own left
- pitch: positive where it looks down; 0 is the middle of the people whom it was measured on
- roll: of the line through the eyes, positive where the eye on the right of the image is lower,
  in (-180, 180]; yaw and pitch are those of the head turned upright by it
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

# A mean head's landmarks (x, y, z), in distances between its eyes: x right and y down as in the
# image, z towards the camera. Measured on the 88 people of identities/validation: x and y are the
# medians of faces that look ahead; the nose's z is that with which its offsets and the distances of
# the eyes lie on one ellipse, as those of a turning head do (docs/quality.md).
_HEAD_53: Final = np.array(
    [
        (-0.5, 0.0, 0.0),
        (0.5, 0.0, 0.0),
        (0.0, 0.605, 0.52),
        (-0.44, 1.0, 0.0),
        (0.44, 1.0, 0.0),
    ]
)
_TO_HEAD_53: Final = np.linalg.pinv(_HEAD_53 - _HEAD_53.mean(axis=0)).T


def head_pose(landmarks_52: NDArray[Any]) -> tuple[float, float, float]:
    """(yaw, pitch, roll) by weak perspective: a scaled rotation of the mean head, seen from afar.

    The affine camera of least squares, and the rotation nearest to it. landmarks_52: (x, y) of left
    eye, right eye, nose, left and right mouth corner, left being the image's left. Landmarks that
    coincide give angles that are finite and mean nothing.
    """
    points = np.asarray(landmarks_52, np.float64)
    x, y = points[1] - points[0]
    roll = np.arctan2(y, x)
    camera_23 = (points - points.mean(axis=0)).T @ _TO_HEAD_53
    u, _, vt = np.linalg.svd(camera_23, full_matrices=False)
    (xx, xy, xz), (yx, yy, yz) = u @ vt
    away = xx * yy - xy * yx  # what is left of the nose's direction, towards the camera
    across = np.cos(roll) * xz + np.sin(roll) * yz
    down = np.cos(roll) * yz - np.sin(roll) * xz
    yaw = np.arctan2(across, away)
    pitch = np.arcsin(np.clip(down, -1, 1))
    return float(np.degrees(yaw)), float(np.degrees(pitch)), float(np.degrees(roll))
