"""Photographs spoilt on purpose, one quality component at a time and by degrees, and what each
value of the component leaves of true matches.

A spoilt photograph goes the way of every photograph: detection, alignment, quality, embedding. It
is compared with the other photographs of its person as they are, and what it matches is set beside
what it matched unspoilt: nothing differs but the spoiling, and never who was photographed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from service.vision.align import IDENTITY_CANVAS, align_crops
from service.vision.detect import Cascade, detect_faces
from service.vision.faces import Face, Photograph
from service.vision.quality import Quality, assess_face
from training.evaluate.bootstrap import draws, measured

Picture = NDArray[np.uint8]  # (H, W, 3) RGB
MARGIN_PX = 72  # repeated around a crop, so that a detector sees a face in a photograph
# Where a crop has what the edges of a photograph are measured from (service.vision.quality).
_EYES = IDENTITY_CANVAS.template_52[:2].mean(axis=0) + MARGIN_PX
_APART = float(np.diff(IDENTITY_CANVAS.template_52[:2, 0])[0])
_TO_CHIN = 1.67 * float(IDENTITY_CANVAS.template_52[3:, 1].mean() + MARGIN_PX - _EYES[1])


@dataclass(frozen=True)
class Spoiling:
    """A way to spoil a picture. strength: in what `kind` says."""

    kind: str
    strength: float
    spoil: Callable[[Picture], Picture]


@dataclass(frozen=True)
class Spoilt:
    """Spoilt photographs whose face was found.

    way_S, probe_S: int64, by which spoiling and of which picture each was made; quality: of each.
    embeddings_SD."""

    way_S: NDArray[np.int64]
    probe_S: NDArray[np.int64]
    quality: list[Quality]
    embeddings_SD: NDArray[np.float32]


def smaller(apart_px: float) -> Spoiling:
    share = apart_px / _APART
    return Spoiling(
        "smaller, px between the eyes",
        apart_px,
        lambda picture: cv2.resize(picture, None, fx=share, fy=share, interpolation=cv2.INTER_AREA),
    )


def blurred(sigma_px: float) -> Spoiling:
    return Spoiling(
        "blurred, sigma in px",
        sigma_px,
        lambda picture: cv2.GaussianBlur(picture, (0, 0), sigma_px),
    )


def shaken(length_px: int) -> Spoiling:
    """Blurred along the rows, as by a camera that moved."""
    return Spoiling("shaken, px", length_px, lambda picture: cv2.blur(picture, (length_px, 1)))


def exposed(gain: float) -> Spoiling:
    kind = "darker, gain" if gain < 1 else "lighter, gain"
    return Spoiling(kind, gain, lambda picture: cv2.convertScaleAbs(picture, alpha=gain))


def faded(contrast: float) -> Spoiling:
    def spoil(picture: Picture) -> Picture:
        kept = float(picture.mean()) * (1 - contrast)
        return cv2.convertScaleAbs(picture, alpha=contrast, beta=kept)

    return Spoiling("faded, contrast", contrast, spoil)


def rolled(degrees: float) -> Spoiling:
    def spoil(picture: Picture) -> Picture:
        height, width = picture.shape[:2]
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), -degrees, 1)
        return cv2.warpAffine(picture, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)

    return Spoiling("rolled, degrees", degrees, spoil)


def cut_left(apart: float) -> Spoiling:
    first = max(0, round(_EYES[0] - _APART / 2 - apart * _APART))
    return Spoiling("cut left", apart, lambda picture: np.ascontiguousarray(picture[:, first:]))


def cut_right(apart: float) -> Spoiling:
    last = round(_EYES[0] + _APART / 2 + apart * _APART)
    return Spoiling("cut right", apart, lambda picture: np.ascontiguousarray(picture[:, :last]))


def cut_above(to_chin: float) -> Spoiling:
    first = max(0, round(_EYES[1] - to_chin * _TO_CHIN))
    return Spoiling("cut above", to_chin, lambda picture: picture[first:])


def cut_below(to_chin: float) -> Spoiling:
    last = round(_EYES[1] + to_chin * _TO_CHIN)
    return Spoiling("cut below", to_chin, lambda picture: picture[:last])


# By the components that a spoiling is after.
SPOILINGS: dict[tuple[str, ...], list[Spoiling]] = {
    ("inter_eye_distance",): [smaller(px) for px in (9, 10.5, 12, 14, 17, 20, 26)],
    ("sharpness",): [
        *(blurred(sigma) for sigma in (1, 1.4, 2, 2.8)),
        *(shaken(length) for length in (5, 9, 13)),
    ],
    (
        *("luminance_mean", "under_exposure_prevention"),
        *("over_exposure_prevention", "dynamic_range"),
    ): [
        *(exposed(gain) for gain in (0.12, 0.18, 0.25, 0.35, 0.5, 1.25, 1.5, 1.75, 2.2, 3)),
        *(faded(contrast) for contrast in (0.12, 0.18, 0.25, 0.35, 0.5)),
    ],
    ("head_pose_roll",): [rolled(degrees) for degrees in (-75, -50, -30, 20, 40, 60)],
    ("leftward_crop_of_the_face_image", "face_area_cut_off"): [
        cut_left(v) for v in (1, 0.9, 0.75, 0.6, 0.45)
    ],
    ("rightward_crop_of_the_face_image", "face_area_cut_off"): [
        cut_right(v) for v in (1, 0.9, 0.75, 0.6, 0.45)
    ],
    ("margin_above_of_the_face_image", "face_area_cut_off"): [
        cut_above(v) for v in (0.8, 0.65, 0.55, 0.45, 0.35)
    ],
    ("margin_below_of_the_face_image", "face_area_cut_off"): [
        cut_below(v) for v in (1.1, 1, 0.9, 0.8, 0.7)
    ],
}


def in_photograph(crop: Picture) -> Picture:
    """An aligned crop with its edges repeated around it."""
    return cv2.copyMakeBorder(crop, *[MARGIN_PX] * 4, cv2.BORDER_REPLICATE)


def find(picture: Picture, cascade: Cascade) -> tuple[Face, Picture, Quality] | None:
    """The face nearest to where a crop's is, its aligned crop and its quality."""
    photograph = Photograph(np.ascontiguousarray(picture))
    faces = detect_faces(photograph, cascade)
    if not faces:
        return None
    face = max(faces, key=lambda face: face.box.area)
    crop = align_crops(photograph, [face.landmarks_52])[0]
    return face, crop, assess_face(photograph, face, crop)


def spoil_all(
    crops: Sequence[Picture],
    spoilings: Sequence[Spoiling],
    cascade: Cascade,
    embed: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
) -> Spoilt:
    """Every crop spoilt in every way."""
    found = [
        (way, probe, find(spoiling.spoil(in_photograph(crop)), cascade))
        for way, spoiling in enumerate(spoilings)
        for probe, crop in enumerate(crops)
    ]
    there = [(way, probe, *seen) for way, probe, seen in found if seen is not None]
    return Spoilt(
        np.array([way for way, *_ in there]),
        np.array([probe for _, probe, *_ in there]),
        [quality for *_, quality in there],
        embed(np.stack([crop for *_, crop, _ in there])),
    )


def left_of_matches(
    matches_S: NDArray[np.float64],
    unspoilt_S: NDArray[np.float64],
    person_S: NDArray[np.int64],
) -> dict[str, float]:
    """The share of true matches that spoilt photographs still have, with 95 % over people.

    matches_S: how many of its person's photographs each matched; unspoilt_S: and before."""
    weights = draws(int(person_S.max()) + 1, rounds=200)[:, person_S]
    return measured("left", (weights @ matches_S) / (weights @ unspoilt_S))
