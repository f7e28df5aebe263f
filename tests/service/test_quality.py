"""service/vision/quality.py: what is measured, the score, and refusals that name every reason."""

import dataclasses

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from service.errors import FaceQualityTooLow
from service.vision.align import IDENTITY_CANVAS
from service.vision.faces import Box, Face, Photograph
from service.vision.quality import BOUNDS, Quality, assess_face, checks, require_quality

PHOTOGRAPH = Photograph(np.zeros((400, 400, 3), np.uint8))
GOOD = Quality(
    score=1,
    sharpness=300,
    luminance_mean=0.5,
    under_exposure_prevention=1,
    over_exposure_prevention=1,
    dynamic_range=7,
    inter_eye_distance=80,
    leftward_crop_of_the_face_image=2,
    rightward_crop_of_the_face_image=2,
    margin_above_of_the_face_image=2,
    margin_below_of_the_face_image=2,
    face_area_cut_off=0,
    head_pose_yaw=0,
    head_pose_pitch=0,
    head_pose_roll=0,
)


def textured() -> NDArray[np.uint8]:
    blocks = np.random.default_rng(0).integers(60, 180, (28, 28), dtype=np.uint8)
    return cv2.cvtColor(cv2.resize(blocks, (112, 112)), cv2.COLOR_GRAY2RGB)


def face_at(points: NDArray[np.floating]) -> Face:
    return Face(Box(150, 150, 100, 100), 0.99, points.astype(np.float32))


def facing(scale: float = 1.0) -> NDArray[np.float64]:
    """The template's landmarks around (200, 200)."""
    return (IDENTITY_CANVAS.template_52 - 56) * scale + 200


def quality_of(
    crop: NDArray[np.uint8] | None = None,
    points: NDArray[np.floating] | None = None,
    photograph: Photograph = PHOTOGRAPH,
) -> Quality:
    crop = textured() if crop is None else crop
    return assess_face(photograph, face_at(facing() if points is None else points), crop)


@pytest.mark.parametrize("kernel", [(9, 1), (1, 9), (9, 9), "diagonal"])
def test_a_blur_along_any_direction_takes_the_sharpness(kernel: tuple[int, int] | str) -> None:
    crop = textured()
    blurred = (
        cv2.filter2D(crop, -1, np.eye(9, dtype=np.float32) / 9)
        if isinstance(kernel, str)
        else cv2.blur(crop, kernel)
    )
    assert quality_of(blurred).sharpness < 0.2 * quality_of(crop).sharpness
    assert quality_of(blurred).score < quality_of(crop).score


def test_a_face_s_edge_on_black_is_no_sharpness() -> None:
    """What lies outside the photograph is black in the crop, with a sharp edge."""
    crop = np.full((112, 112, 3), 128, np.uint8)
    crop[:, :16] = crop[:20] = 0
    assert quality_of(crop).sharpness == 0


def test_light_is_measured_as_shares_and_bits() -> None:
    crop = np.full((112, 112, 3), 25, np.uint8)
    crop[:, 56:] = 247
    quality = quality_of(crop)
    assert quality.luminance_mean == pytest.approx((25 + 247) / 2 / 255)
    assert quality.under_exposure_prevention == pytest.approx(0.5)
    assert quality.over_exposure_prevention == pytest.approx(0.5)
    assert quality.dynamic_range == pytest.approx(1)
    flat = quality_of(np.full((112, 112, 3), 26, np.uint8))
    assert (flat.under_exposure_prevention, flat.over_exposure_prevention) == (1, 1)
    assert flat.dynamic_range == 0


def test_places_are_told_in_the_face_s_own_measure() -> None:
    for scale in (0.5, 1.0):
        quality = quality_of(points=facing(scale))
        left, right = facing(scale)[:2]
        apart = np.hypot(*(right - left))
        assert quality.inter_eye_distance == pytest.approx(apart)
        assert quality.leftward_crop_of_the_face_image == pytest.approx(left[0] / apart)
        assert quality.rightward_crop_of_the_face_image == pytest.approx((400 - right[0]) / apart)
        assert quality.margin_above_of_the_face_image == pytest.approx(2.87 / scale, abs=0.2)
        above, below = (
            getattr(quality, f"margin_{side}_of_the_face_image") for side in ("above", "below")
        )
        eyes = (left[1] + right[1]) / 2
        assert above / below == pytest.approx(eyes / (400 - eyes))


def test_the_eye_nearer_to_an_edge_counts_even_of_a_face_upside_down() -> None:
    upside_down = 400 - facing()
    quality = quality_of(points=upside_down)
    apart, across = quality.inter_eye_distance, upside_down[:2, 0]
    assert quality.leftward_crop_of_the_face_image == pytest.approx(across.min() / apart)
    assert quality.rightward_crop_of_the_face_image == pytest.approx((400 - across.max()) / apart)
    assert abs(quality.head_pose_roll) == pytest.approx(180, abs=1)


def test_a_face_that_the_edge_cuts_has_less_than_one_that_is_whole() -> None:
    whole, cut = quality_of(), quality_of(points=facing() - (170, 0))
    assert cut.leftward_crop_of_the_face_image < 0.6 < whole.leftward_crop_of_the_face_image
    assert cut.score < whole.score


def test_a_cut_face_is_named_whichever_edge_cuts_it_and_however_it_is_turned() -> None:
    """The crop reaches 44 px from the middle of the landmarks at (200, 200) to the left."""
    assert quality_of().face_area_cut_off == 0
    for turned in range(4):
        points = (facing() - 200) @ np.linalg.matrix_power([[0, 1], [-1, 0]], turned) + 200
        for shift in ((-184, 0), (184, 0), (0, -184), (0, 184)):
            quality = quality_of(points=points + shift)
            assert 0.3 < quality.face_area_cut_off < 0.45
            failed = {c.component: c for c in checks(quality, "standard") if not c.passed}
            assert failed["face_area_cut_off"].reason == "face-area-cut-off-too-high"
            assert quality.score <= 0.8


def test_a_rolled_face_without_its_chin_is_cut_though_its_eyes_are_far_from_the_edge() -> None:
    """Lying on its side, with its mouth at the photograph's left edge."""
    points = (facing() - 200) @ np.array([[0, 1], [-1, 0]]) + 200
    points[:, 0] -= points[3:, 0].min() - 1
    failed = {c.component for c in checks(quality_of(points=points), "strict") if not c.passed}
    assert failed == {"head_pose_roll", "face_area_cut_off"}


def test_eyes_in_one_point_are_measured_without_a_division_by_zero() -> None:
    quality = quality_of(points=np.zeros((5, 2)))
    assert quality.inter_eye_distance == 0
    assert np.isfinite(list(dataclasses.asdict(quality).values())).all()


@pytest.mark.parametrize("level", ["standard", "strict"])
def test_each_bound_refuses_what_is_just_beyond_it_by_its_name(level: str) -> None:
    require_quality(GOOD, level)
    for component, bounds in BOUNDS[level].items():
        for limit, step in zip(bounds, (-0.01, 0.01), strict=True):
            if limit is not None:
                require_quality(changed(component, limit), level)
                with pytest.raises(FaceQualityTooLow) as refused:
                    require_quality(changed(component, limit + step), level)
                [failed] = refused.value.failed
                assert (failed["component"], failed["limit"]) == (component, limit)
                assert failed["value"] == pytest.approx(limit + step, rel=1e-3)


def test_all_that_is_wrong_is_told_at_once_with_codes_and_words() -> None:
    bad = dataclasses.replace(GOOD, sharpness=1.23456, head_pose_yaw=-80.0)
    with pytest.raises(FaceQualityTooLow) as refused:
        require_quality(bad, "standard")
    error = refused.value
    assert [(one["component"], one["value"], one["reason"]) for one in error.failed] == [
        ("sharpness", 1.235, "sharpness-too-low"),
        ("head_pose_yaw", -80, "head-pose-yaw-too-large"),
    ]
    least, turned = BOUNDS["standard"]["sharpness"][0], BOUNDS["standard"]["head_pose_yaw"][0]
    assert str(error) == (
        "quality=standard asks for a better picture of the face: "
        f"sharpness is 1.235, at least {least:g} is asked; "
        f"head_pose_yaw is -80, at least {turned:g} is asked"
    )


@pytest.mark.parametrize("level", ["standard", "strict"])
def test_checks_tell_every_bound_passed_or_not(level: str) -> None:
    told = {check.component: check for check in checks(GOOD, level)}
    assert {c: (one.least, one.most) for c, one in told.items()} == BOUNDS[level]
    assert all(one.passed and one.reason is None for one in told.values())
    yaw = {c.component: c for c in checks(changed("head_pose_yaw", 89), level)}["head_pose_yaw"]
    assert (yaw.passed, yaw.reason) == (False, "head-pose-yaw-too-large")
    light = {c.component: c for c in checks(changed("luminance_mean", 1), level)}["luminance_mean"]
    assert (light.passed, light.reason) == (False, "luminance-mean-too-high")


def test_strict_asks_for_all_that_standard_asks_for_and_more() -> None:
    for component, (least, most) in BOUNDS["standard"].items():
        strict_least, strict_most = BOUNDS["strict"][component]
        assert least is None or strict_least >= least
        assert most is None or strict_most <= most


def test_off_asks_for_nothing() -> None:
    worst = Quality(*[-1000.0] * len(dataclasses.fields(Quality)))
    assert checks(worst, "off") == []
    require_quality(worst, "off")


def test_the_score_lies_between_zero_and_one_and_falls_with_what_is_lost() -> None:
    assert 0.9 < quality_of(textured(), facing(1.5)).score <= 1
    assert quality_of(np.zeros((112, 112, 3), np.uint8)).score < 0.1
    for worse in (quality_of(points=facing(0.2)), quality_of(cv2.blur(textured(), (9, 9)))):
        assert 0 <= worse.score < 0.5


def test_a_face_turned_to_either_side_is_worth_the_same() -> None:
    left, right = facing(1.5), facing(1.5)
    for points, step in ((left, -20), (right, 20)):
        points[:, 0] = [150, 200, 175 + step, 155, 195]
    turned = [quality_of(points=points) for points in (left, right)]
    assert turned[0].head_pose_yaw == pytest.approx(-turned[1].head_pose_yaw, abs=1)
    assert turned[0].score == pytest.approx(turned[1].score, abs=0.02)
    assert turned[0].score < 0.8


def changed(component: str, value: float) -> Quality:
    return dataclasses.replace(GOOD, **{component: value})
