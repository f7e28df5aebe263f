"""service/vision/quality.py: plain measures, and refusals that name value and limit."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from service.errors import FaceQualityTooLow
from service.vision.align import IDENTITY_CANVAS
from service.vision.faces import Box, Face, Photograph
from service.vision.quality import BOUNDS, Quality, assess_face, require_quality

PHOTOGRAPH = Photograph(np.zeros((400, 400, 3), np.uint8))
GOOD = Quality(
    score=1, sharpness=500, luminance=120, inter_eye_px=80, roll_deg=0, yaw_deg=0, margin=0.5
)


def textured() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(60, 180, (112, 112, 3), dtype=np.uint8)


def face_at(points: NDArray[np.floating], box: Box | None = None) -> Face:
    return Face(box or Box(150, 150, 100, 100), 0.99, points.astype(np.float32))


def turned(degrees: float) -> NDArray[np.float64]:
    angle = np.radians(degrees)
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return (IDENTITY_CANVAS.template_52 - 56) @ matrix + 200


def test_a_blurred_picture_is_less_sharp_and_worth_less() -> None:
    crop = textured()
    blurred = cv2.GaussianBlur(crop, (15, 15), 5)
    sharp, soft = (assess_face(PHOTOGRAPH, face_at(turned(0)), c) for c in (crop, blurred))
    assert sharp.sharpness > 100 * soft.sharpness
    assert sharp.score > soft.score == 0


def test_luminance_is_the_mean_grey() -> None:
    crop = np.full((112, 112, 3), 37, np.uint8)
    assert assess_face(PHOTOGRAPH, face_at(turned(0)), crop).luminance == 37


@pytest.mark.parametrize("degrees", [-40, 0, 25])
def test_roll_is_the_angle_of_the_eyes(degrees: float) -> None:
    level = assess_face(PHOTOGRAPH, face_at(turned(0)), textured()).roll_deg
    quality = assess_face(PHOTOGRAPH, face_at(turned(degrees)), textured())
    assert quality.roll_deg - level == pytest.approx(degrees, abs=0.1)
    assert quality.yaw_deg == pytest.approx(0, abs=1)


def test_yaw_has_the_sign_of_the_side_that_the_nose_turns_to() -> None:
    points = turned(0)
    points[2, 0] += 0.5 * (points[1, 0] - points[0, 0])
    assert assess_face(PHOTOGRAPH, face_at(points), textured()).yaw_deg == pytest.approx(45, abs=1)


def test_a_face_that_the_edge_cuts_has_a_margin_below_zero() -> None:
    cut = face_at(turned(0), Box(-30, 150, 100, 100))
    assert assess_face(PHOTOGRAPH, cut, textured()).margin == pytest.approx(-0.3)


def test_eyes_in_one_point_are_measured_without_a_division_by_zero() -> None:
    quality = assess_face(PHOTOGRAPH, face_at(np.zeros((5, 2))), textured())
    assert quality.inter_eye_px == 0
    assert np.isfinite(quality.yaw_deg)


@pytest.mark.parametrize("level", ["standard", "strict"])
def test_each_bound_refuses_what_is_just_beyond_it_by_its_name(level: str) -> None:
    require_quality(GOOD, level)
    for measure, bounds in BOUNDS[level].items():
        for limit, step, word in zip(bounds, (-0.01, 0.01), ("least", "most"), strict=True):
            if limit is not None:
                require_quality(changed(measure, limit), level)
                with pytest.raises(FaceQualityTooLow) as refused:
                    require_quality(changed(measure, limit + step), level)
                error = refused.value
                assert (error.measure, error.limit, error.bound) == (measure, limit, word)


def test_off_asks_for_nothing() -> None:
    require_quality(Quality(*[-1000.0] * 7), "off")


def changed(measure: str, value: float) -> Quality:
    return Quality(**{**GOOD.__dict__, measure: value})
