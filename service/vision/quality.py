"""What a face's picture is worth: a few plain measures, and bounds that a gallery may ask for.

The measures are simple and their bounds are chosen by eye and by the spread of the validation crops
(sharpness 36 at the least, 105 at the fifth percentile); they are no ISO/IEC 29794-5 components.

- sharpness: variance of the Laplacian of the aligned crop's grey values, (0..255)^2
- luminance: mean of the aligned crop's grey values, 0..255
- inter_eye_px: distance of the eyes in the photograph
- roll_deg: of the line through the eyes against the photograph's horizon, in (-180, 180],
  positive where the image's right eye is lower
- yaw_deg: rough (within some 10 degrees), from where the nose stands between the eyes: a nose is
  about half the eyes' distance in front of them, so its offset in that unit is tan(yaw) / 2
- margin: from the box to the nearest edge of the photograph, in widths of the box; below 0, cut
"""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from service.errors import FaceQualityTooLow
from service.vision.faces import Face, Photograph


@dataclass(frozen=True)
class Quality:
    """A face's measures, and a score in [0, 1]: that of the measure which is worst."""

    score: float
    sharpness: float
    luminance: float
    inter_eye_px: float
    roll_deg: float
    yaw_deg: float
    margin: float


# What level asks of which measure, as (least, most).
BOUNDS: Final[dict[str, dict[str, tuple[float | None, float | None]]]] = {
    "off": {},
    "standard": {
        "inter_eye_px": (18, None),
        "sharpness": (40, None),
        "luminance": (30, 225),
        "yaw_deg": (-45, 45),
        "roll_deg": (-60, 60),
        "margin": (-0.2, None),
    },
    "strict": {
        "inter_eye_px": (40, None),
        "sharpness": (100, None),
        "luminance": (50, 205),
        "yaw_deg": (-25, 25),
        "roll_deg": (-25, 25),
        "margin": (0, None),
    },
}
# Where each measure begins to count for nothing and where it is as good as any, from both sides.
_WORTH: Final[dict[str, tuple[tuple[float, float], tuple[float, float] | None]]] = {
    "sharpness": ((10, 150), None),
    "luminance": ((10, 80), (250, 180)),
    "inter_eye_px": ((6, 60), None),
    "roll_deg": ((-120, -15), (120, 15)),
    "yaw_deg": ((-70, -15), (70, 15)),
    "margin": ((-0.6, 0), None),
}


def assess_face(photograph: Photograph, face: Face, crop: NDArray[np.uint8]) -> Quality:
    """The face's quality. crop: its aligned crop, uint8 (112, 112, 3) RGB."""
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    left_eye, right_eye, nose = face.landmarks_52[:3].astype(np.float64)
    across = right_eye - left_eye
    inter_eye_px = float(np.hypot(*across))
    offset = float((nose - (left_eye + right_eye) / 2) @ across) / max(inter_eye_px**2, 1e-6)
    measures = {
        "sharpness": float(cv2.Laplacian(grey, cv2.CV_32F).var()),
        "luminance": float(grey.mean()),
        "inter_eye_px": inter_eye_px,
        "roll_deg": float(np.degrees(np.arctan2(across[1], across[0]))),
        "yaw_deg": float(np.degrees(np.arctan(2 * offset))),
        "margin": _margin(photograph, face),
    }
    return Quality(score=min(_worth(k, v) for k, v in measures.items()), **measures)


def require_quality(quality: Quality, level: str) -> None:
    """Nothing, when the face meets the level (off, standard, strict); raises FaceQualityTooLow."""
    for measure, (least, most) in BOUNDS[level].items():
        value = getattr(quality, measure)
        if least is not None and not value >= least:
            raise FaceQualityTooLow(measure, value, least, "least", level)
        if most is not None and not value <= most:
            raise FaceQualityTooLow(measure, value, most, "most", level)


def _worth(measure: str, value: float) -> float:
    low, high = _WORTH[measure]
    sides = [low] if high is None else [low, high]
    worth = min((value - nothing) / (good - nothing) for nothing, good in sides)
    return min(1.0, max(0.0, worth))


def _margin(photograph: Photograph, face: Face) -> float:
    box = face.box
    right, bottom = photograph.width - box.x - box.width, photograph.height - box.y - box.height
    return min(box.x, box.y, right, bottom) / max(box.width, 1e-6)
