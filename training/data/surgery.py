"""Micro-surgery on photographs: small smooth warps of an aligned crop, as a surgeon's small changes
of lids, nose, lips and jaw look in a face of the same person.

HSANet's photographs of people before and after surgery are private and nothing is published that
makes such pairs, so these procedures are designed here. A face in a crop lies where the alignment's
template says, and each procedure is a displacement on a bounded ellipse around its part.
Geometry: (x, y) in pixels of the crop, origin at the centre of the top left pixel; a displacement
maps a point of the picture after to the point of the picture before that it shows."""

from dataclasses import dataclass, fields
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from service.vision.align import IDENTITY_CANVAS

SIDE = IDENTITY_CANVAS.width
PROCEDURES_OF_ONE = 3  # that a person has had

_LEFT_EYE, _RIGHT_EYE, _NOSE, _MOUTH_LEFT, _MOUTH_RIGHT = IDENTITY_CANVAS.template_52
_BETWEEN_EYES = (_LEFT_EYE + _RIGHT_EYE) / 2
_MOUTH = (_MOUTH_LEFT + _MOUTH_RIGHT) / 2


@dataclass(frozen=True)
class Surgery:
    """What was done to a face: each procedure's strength in [0, 1], 0 being not at all.

    eyelids: lids opened (up to 1.35 times as high at the pupil). eyes: enlarged. bridge, wings: of
    the nose, narrowed. lips: fuller. jaw: its sides moved in, up to 4.5 pixels. chin: longer, up to
    4 pixels. Raises ValueError for a strength outside, naming the procedure."""

    eyelids: float = 0.0
    eyes: float = 0.0
    bridge: float = 0.0
    wings: float = 0.0
    lips: float = 0.0
    jaw: float = 0.0
    chin: float = 0.0

    def __post_init__(self) -> None:
        for name in PROCEDURES:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; a strength is in [0, 1]")


PROCEDURES = tuple(field.name for field in fields(Surgery))


@dataclass(frozen=True)
class Touch:
    """A displacement on the ellipse of `radii` around `centre`, none outside.

    d = bump * (squeeze * (p - centre) - shift): squeeze > 0 makes what lies there smaller along its
    axis, < 0 larger; shift is how far, in pixels, the content at the centre moves. bump is
    (1 - r^2)^2 of the distance r in radii: smooth, its slope is nought at both ends."""

    centre: Any
    radii: tuple[float, float]
    squeeze: tuple[float, float] = (0.0, 0.0)
    shift: tuple[float, float] = (0.0, 0.0)


# At strength 1. The slopes of all together stay above -1, so a face is never folded: the map can be
# inverted, whatever the strengths.
TOUCHES: dict[str, tuple[Touch, ...]] = {
    "eyelids": tuple(Touch(eye, (14, 9), squeeze=(0, -0.35)) for eye in (_LEFT_EYE, _RIGHT_EYE)),
    "eyes": tuple(Touch(eye, (15, 12), squeeze=(-0.22, -0.22)) for eye in (_LEFT_EYE, _RIGHT_EYE)),
    "bridge": (Touch(_BETWEEN_EYES + np.array((0, 5)), (11, 16), squeeze=(0.35, 0)),),
    "wings": (Touch(_NOSE + np.array((0, 2)), (16, 11), squeeze=(0.35, 0)),),
    "lips": (Touch(_MOUTH, (22, 11), squeeze=(0, -0.35)),),
    "jaw": (
        Touch((22, 90), (22, 26), shift=(4.5, 0)),
        Touch((90, 90), (22, 26), shift=(-4.5, 0)),
    ),
    "chin": (Touch((_MOUTH[0], 108), (30, 16), shift=(0, 4)),),
}


def surgery_of(person: int, *, seed: int) -> Surgery:
    """A person's surgery: three procedures at strengths in [0.5, 1], from (seed, person) alone.

    It belongs to the person: every photograph of them after it shows the same change."""
    rng = np.random.default_rng((seed, person))
    had = rng.choice(len(PROCEDURES), PROCEDURES_OF_ONE, replace=False)
    return Surgery(**{PROCEDURES[i]: float(rng.uniform(0.5, 1)) for i in sorted(had)})


def displacement(surgery: Surgery) -> NDArray[np.float64]:
    """(SIDE, SIDE, 2): what to add to each pixel's (x, y) for the place that it shows."""
    places_YX2 = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), axis=-1).astype(float)
    moved = np.zeros_like(places_YX2)
    for name in PROCEDURES:
        for touch in TOUCHES[name]:
            moved += getattr(surgery, name) * _moved(touch, places_YX2)
    return moved


def operate(crop_rgb: NDArray[np.uint8], surgery: Surgery) -> NDArray[np.uint8]:
    """The crop after surgery, of the same shape; bilinear. The crop itself is left alone.

    crop_rgb: uint8 (112, 112, 3), aligned; ValueError for another shape or type. Where nothing was
    done no pixel changes. What would come from outside the crop is its reflection."""
    if crop_rgb.shape != (SIDE, SIDE, 3) or crop_rgb.dtype != np.uint8:
        raise ValueError(
            f"surgery takes an aligned crop, uint8 {(SIDE, SIDE, 3)}; "
            f"this is {crop_rgb.dtype} {crop_rgb.shape}"
        )
    x, y = np.moveaxis(displacement(surgery), -1, 0)
    columns = (x + np.arange(SIDE)).astype(np.float32)
    rows = (y + np.arange(SIDE)[:, None]).astype(np.float32)
    crop = np.ascontiguousarray(crop_rgb)
    return cv2.remap(crop, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def _moved(touch: Touch, places_YX2: NDArray[np.float64]) -> NDArray[np.float64]:
    from_centre = places_YX2 - np.asarray(touch.centre)
    r2_YX = ((from_centre / touch.radii) ** 2).sum(-1, keepdims=True)
    bump = np.clip(1 - r2_YX, 0, None) ** 2
    return bump * (np.asarray(touch.squeeze) * from_centre - np.asarray(touch.shift))
