"""What a face's picture is worth: its quality components, and bounds that a gallery may ask for.

The components bear the names of ISO/IEC 29794-5:2025 as its reference implementation OFIQ writes
them, in snake_case. The measures are simple ones of our own, out of the five landmarks and the
aligned crop, not the standard's algorithms (which need 98 landmarks, segmentation and networks):
values are in the units below and not on its scale from 0 to 100.

Capture-related (the standard's clause 7.3), of the face alone, which is a window of the crop:

- sharpness: 4 times the least variance of the grey values' second derivatives along four
  directions, in (0..255)^2: a blur along any one direction takes it away
- luminance_mean: mean of the grey values, in [0, 1]. It depends on the skin too
- under_exposure_prevention: share of pixels above 25 of 255, OFIQ's bound
- over_exposure_prevention: share of pixels below 247 of 255, OFIQ's bound
- dynamic_range: entropy of the histogram of grey values, 0 to 8 bits, as OFIQ's

Subject-related (clause 7.4), of the landmarks in the photograph:

- inter_eye_distance: of the eyes in pixels; not divided by the yaw's cosine, as OFIQ's is
- leftward_, rightward_crop_of_the_face_image: from the photograph's left (right) edge to the eye
  that is nearer to it, in distances of the eyes
- margin_above_, margin_below_of_the_face_image: from the photograph's upper (lower) edge to the
  middle of the eyes, in distances from there to the chin, which is guessed from the mouth
- face_area_cut_off: share of the aligned crop's area that lies outside the photograph, in [0, 1].
  Name and measure are ours: the four distances above do not see a corner, nor a rolled face's chin
- head_pose_yaw, _pitch, _roll: degrees, as in pose.py
"""

from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from service.errors import FaceQualityTooLow
from service.vision.align import share_outside
from service.vision.faces import Face, Photograph
from service.vision.pose import head_pose

Bound = tuple[float | None, float | None]  # least, most
_FACE: Final = (slice(28, 108), slice(22, 90))  # brows to chin, cheek to cheek, of a 112 x 112 crop
_ALONG: Final = tuple(  # second derivatives; a diagonal's step is longer
    np.array(kernel, np.float32)
    for kernel in (
        [[0, 0, 0], [1, -2, 1], [0, 0, 0]],
        [[0, 1, 0], [0, -2, 0], [0, 1, 0]],
        [[0.5, 0, 0], [0, -1, 0], [0, 0, 0.5]],
        [[0, 0, 0.5], [0, -1, 0], [0.5, 0, 0]],
    )
)
_DARK, _LIGHT = 25, 247
# From the eyes to the lower edge of MTCNN's box, in distances from the eyes to the mouth: the
# median of 70 upright faces, half of which lie between 1.58 and 1.80.
_CHIN: Final = 1.67


@dataclass(frozen=True)
class Quality:
    """A face's components, and a score in [0, 1]: what the worst of them leaves of true matches."""

    score: float
    sharpness: float
    luminance_mean: float
    under_exposure_prevention: float
    over_exposure_prevention: float
    dynamic_range: float
    inter_eye_distance: float
    leftward_crop_of_the_face_image: float
    rightward_crop_of_the_face_image: float
    margin_above_of_the_face_image: float
    margin_below_of_the_face_image: float
    face_area_cut_off: float
    head_pose_yaw: float
    head_pose_pitch: float
    head_pose_roll: float


@dataclass(frozen=True)
class Check:
    """A component's value beside the bounds of a level. reason: a code, None where it passed."""

    component: str
    value: float
    least: float | None
    most: float | None
    passed: bool
    reason: str | None


# What level asks of which component: where a photograph keeps four fifths (standard) and nineteen
# twentieths (strict) of its true matches, on people of identities/validation (docs/quality.md).
BOUNDS: Final[dict[str, dict[str, Bound]]] = {
    "off": {},
    "standard": {
        "sharpness": (16, None),
        "luminance_mean": (0.09, 0.84),
        "under_exposure_prevention": (0.4, None),
        "over_exposure_prevention": (0.53, None),
        "dynamic_range": (4.9, None),
        "inter_eye_distance": (11, None),
        "leftward_crop_of_the_face_image": (0.15, None),
        "rightward_crop_of_the_face_image": (0.15, None),
        "margin_above_of_the_face_image": (0.38, None),
        "margin_below_of_the_face_image": (0.72, None),
        "face_area_cut_off": (None, 0.22),
        "head_pose_yaw": (-37, 37),
        "head_pose_pitch": (-26, 26),
        "head_pose_roll": (-54, 54),
    },
    "strict": {
        "sharpness": (39, None),
        "luminance_mean": (0.17, 0.76),
        "under_exposure_prevention": (0.86, None),
        "over_exposure_prevention": (0.86, None),
        "dynamic_range": (5.6, None),
        "inter_eye_distance": (16, None),
        "leftward_crop_of_the_face_image": (0.6, None),
        "rightward_crop_of_the_face_image": (0.6, None),
        "margin_above_of_the_face_image": (0.58, None),
        "margin_below_of_the_face_image": (0.91, None),
        "face_area_cut_off": (None, 0.09),
        "head_pose_yaw": (-24, 24),
        "head_pose_pitch": (-17, 17),
        "head_pose_roll": (-36, 36),
    },
}
# What share of true matches a component's value leaves, as measured in the same place: its values,
# rising, angles without their sign, and the shares; linear between, 0 and 1 at the ends.
_PLACE: Final = ((-0.5, 0.0, 0.25, 0.5, 0.76, 0.92, 1.1), (0, 0.71, 0.86, 0.94, 0.97, 0.99, 1))
_LEFT: Final[dict[str, tuple[tuple[float, ...], tuple[float, ...]]]] = {
    "sharpness": ((0, 8.9, 16.8, 31.5, 57), (0, 0.51, 0.82, 0.94, 1)),
    "under_exposure_prevention": ((-0.01, 0.01, 0.6, 0.82, 0.95), (0, 0.68, 0.86, 0.93, 1)),
    "over_exposure_prevention": ((0, 0.33, 0.43, 0.6, 0.79, 0.99), (0, 0.43, 0.69, 0.87, 0.93, 1)),
    "dynamic_range": ((3, 4.3, 4.7, 5.1, 5.6, 6.2), (0, 0.48, 0.75, 0.88, 0.95, 1)),
    "inter_eye_distance": ((4, 9.3, 10.9, 12.5, 17.5, 27), (0, 0.64, 0.78, 0.87, 0.97, 1)),
    "leftward_crop_of_the_face_image": _PLACE,
    "rightward_crop_of_the_face_image": _PLACE,
    "margin_above_of_the_face_image": ((0, 0.21, 0.4, 0.61, 0.9), (0, 0.44, 0.84, 0.97, 1)),
    "margin_below_of_the_face_image": ((0.3, 0.53, 0.73, 0.92, 1.2), (0, 0.43, 0.82, 0.96, 1)),
    "face_area_cut_off": (
        (0, 0.09, 0.16, 0.22, 0.3, 0.4, 0.5, 0.6),
        (1, 0.95, 0.89, 0.8, 0.6, 0.34, 0.11, 0),
    ),
    "head_pose_yaw": ((10, 22, 27, 35, 42, 46, 70), (1, 0.96, 0.93, 0.81, 0.64, 0.48, 0)),
    "head_pose_pitch": ((10, 17, 22, 27, 33, 45), (1, 0.95, 0.9, 0.78, 0.42, 0)),
    "head_pose_roll": ((20, 31, 38, 51, 58, 65, 90), (1, 0.99, 0.93, 0.89, 0.68, 0.5, 0)),
}


def assess_face(photograph: Photograph, face: Face, crop: NDArray[np.uint8]) -> Quality:
    """The face's quality. crop: its aligned crop, uint8 (112, 112, 3) RGB."""
    yaw, pitch, roll = head_pose(face.landmarks_52)
    components = {
        **_of_capture(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)),
        "inter_eye_distance": face.inter_eye_px,
        **_of_place(photograph, face),
        "face_area_cut_off": share_outside(photograph, face.landmarks_52),
        "head_pose_yaw": yaw,
        "head_pose_pitch": pitch,
        "head_pose_roll": roll,
    }
    return Quality(score=score_of(components), **components)


def score_of(components: dict[str, float]) -> float:
    """What the worst component leaves of true matches, in [0, 1].

    luminance_mean has no part in it: it tells of the skin as well as of the light.
    """
    values = {n: abs(v) if n.startswith("head_pose") else v for n, v in components.items()}
    return min(float(np.interp(values[name], *known)) for name, known in _LEFT.items())


def checks(quality: Quality, level: str) -> list[Check]:
    """Each component that the level (off, standard, strict) asks about, beside its bounds."""
    return [
        _check(component, getattr(quality, component), *bound)
        for component, bound in BOUNDS[level].items()
    ]


def require_quality(quality: Quality, level: str) -> None:
    """Nothing, when the face meets the level; raises FaceQualityTooLow with all that it lacks."""
    failed = [check for check in checks(quality, level) if not check.passed]
    if failed:
        raise FaceQualityTooLow(level, [_failure(check) for check in failed])


def _check(component: str, value: float, least: float | None, most: float | None) -> Check:
    low = least is not None and not value >= least
    high = most is not None and not value <= most
    reason = None
    if low or high:
        turned = least is not None and least == -(most or 0)
        reason = "too-large" if turned else "too-low" if low else "too-high"
        reason = f"{component.replace('_', '-')}-{reason}"
    return Check(component, value, least, most, not (low or high), reason)


def _failure(check: Check) -> dict[str, Any]:
    """The failed check as plain data, with the limit that was broken."""
    below = check.least is not None and not check.value >= check.least
    return {
        "component": check.component,
        "value": float(f"{check.value:.4g}"),
        "limit": check.least if below else check.most,
        "reason": check.reason,
    }


def _of_capture(grey: NDArray[np.uint8]) -> dict[str, float]:
    """The components of the aligned crop's grey values, uint8 (112, 112)."""
    face = grey[_FACE]
    along = (cv2.filter2D(face, cv2.CV_32F, kernel) for kernel in _ALONG)
    share = np.bincount(face.ravel(), minlength=256) / face.size
    seen = share[share > 0]
    return {
        "sharpness": 4 * min(float(derivative.var()) for derivative in along),
        "luminance_mean": float(face.mean()) / 255,
        "under_exposure_prevention": float(share[_DARK + 1 :].sum()),
        "over_exposure_prevention": float(share[:_LIGHT].sum()),
        "dynamic_range": max(0.0, float(-(seen * np.log2(seen)).sum())),
    }


def _of_place(photograph: Photograph, face: Face) -> dict[str, float]:
    """Where the face is between the edges of its photograph."""
    points = face.landmarks_52.astype(np.float64)
    eyes, mouth = points[:2].mean(axis=0), points[3:].mean(axis=0)
    apart = max(face.inter_eye_px, 1e-3)
    to_chin = max(_CHIN * float(np.hypot(*(mouth - eyes))), 1e-3)
    left, right = sorted(points[:2, 0].tolist())
    return {
        "leftward_crop_of_the_face_image": left / apart,
        "rightward_crop_of_the_face_image": (photograph.width - right) / apart,
        "margin_above_of_the_face_image": float(eyes[1]) / to_chin,
        "margin_below_of_the_face_image": (photograph.height - float(eyes[1])) / to_chin,
    }
