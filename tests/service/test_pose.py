"""service/vision/pose.py: angles of a head whose landmarks are known."""

import json

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from service.vision.pose import _HEAD_53, head_pose
from tests.shared import SHARED, needs_shared
from training.detector import open_detector
from training.evaluate.spoilt import find


def seen(yaw: float, pitch: float, roll: float, scale: float = 60) -> NDArray[np.float64]:
    """The landmarks of the mean head, turned and seen from afar."""
    y, p, r = np.radians((yaw, pitch, roll))
    # With z towards the viewer and y down: the nose to the right, then down, then all clockwise.
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(p), np.sin(p)], [0, -np.sin(p), np.cos(p)]])
    about_z = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    turned = _HEAD_53 @ (about_z @ about_x @ about_y).T
    return turned[:, :2] * scale + (300, 200)


@pytest.mark.parametrize("angle", [-40, -15, 0, 10, 35])
def test_one_turn_of_the_mean_head_is_told_exactly(angle: float) -> None:
    assert head_pose(seen(angle, 0, 0)) == pytest.approx((angle, 0, 0), abs=1e-6)
    assert head_pose(seen(0, angle, 0)) == pytest.approx((0, angle, 0), abs=1e-6)
    assert head_pose(seen(0, 0, angle)) == pytest.approx((0, 0, angle), abs=1e-6)


@pytest.mark.parametrize("roll", [-170, -90, 30, 120, 180])
def test_yaw_and_pitch_are_those_of_the_head_turned_upright(roll: float) -> None:
    level = head_pose(seen(25, 0, 0))
    assert head_pose(seen(25, 0, roll)) == pytest.approx((*level[:2], roll), abs=1e-6)


def test_angles_hang_on_neither_place_nor_size() -> None:
    assert head_pose(seen(20, -10, 5, scale=4) + 1000) == pytest.approx(
        head_pose(seen(20, -10, 5, scale=400)), abs=1e-6
    )


def test_a_mirrored_head_looks_the_other_way() -> None:
    points = seen(20, 10, 15)
    mirrored = (points * (-1, 1))[[1, 0, 2, 4, 3]]
    yaw, pitch, roll = head_pose(points)
    assert head_pose(mirrored) == pytest.approx((-yaw, pitch, -roll), abs=1e-6)


def test_landmarks_that_coincide_give_finite_angles() -> None:
    assert np.isfinite(head_pose(np.zeros((5, 2)))).all()
    assert np.isfinite(head_pose(np.array([(0, 0), (9, 0), (4, 0), (1, 0), (8, 0)]))).all()


@needs_shared("golden/mtcnn.json")
def test_real_faces_that_are_mirrored_or_turned_keep_their_angles() -> None:
    """Found again by the detector, so that its own uncertainty is in what is measured."""
    cascade, differences = open_detector(), []
    for image in json.loads((SHARED / "golden" / "mtcnn.json").read_text())["images"]:
        if len(image["boxes"]) != 1 or image["boxes"][0][2] - image["boxes"][0][0] < 60:
            continue
        picture = cv2.imread(str(SHARED / "golden" / "photos" / image["file"]))[:, :, ::-1]
        height, width = picture.shape[:2]
        if height * width > 250_000 or len(differences) >= 24:
            continue
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), -15, 1)
        turned = cv2.warpAffine(picture, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)
        views = [find(view, cascade) for view in (picture, picture[:, ::-1], turned)]
        if all(views):
            (yaw, pitch, roll), mirrored, tilted = (head_pose(v[0].landmarks_52) for v in views)
            differences.append(np.add(mirrored, (yaw, -pitch, roll)))
            differences.append(np.subtract(tilted, (yaw, pitch, roll + 15)))
    assert len(differences) >= 10
    assert (np.median(np.abs(differences), axis=0) < (4, 5, 3)).all()
