"""Warnings of an enrollment: what a caller probably did by mistake. They refuse nothing.

Similarities are judged by the calibration that the gallery decides by: "like another person" is
what /identify would call a match, "unlike" the level below which `mien calibrate` doubts a
photograph.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.calibration.doubts import UNLIKE_FMR
from service.decision import (
    Calibration,
    decide,
    strictest,
    threshold_for_fmr,
    threshold_for_fpir,
)
from service.gallery.contract import Candidate, NearestFace
from service.inference.artefact import EMBEDDING_COSINE

TARGET_FPIR: Final = 0.01  # /identify's own, where its caller asks for none
AGAIN: Final = "photograph-again"
LIKE_ANOTHER: Final = "like-another-person"
UNLIKE_OWN: Final = "unlike-own-faces"
NEW_PERSON: Final = "new-person"
NOT_COMPARED: Final = "not-compared"


@dataclass(frozen=True)
class EnrollWarning:
    """A warning. image: its index in the call; limit: the similarity that it was judged by."""

    type: str
    detail: str
    image: int | None = None
    person_id: str | None = None
    face_id: str | None = None
    similarity: float | None = None
    limit: float | None = None


@dataclass(frozen=True)
class Neighbours:
    """The most similar faces of a gallery to a new one. own: the best of the faces that the person
    has; other: of somebody else; None where there is none, or none that the caller may know."""

    own: NearestFace | None
    other: Candidate | None


def find_warnings(
    embeddings_ND: NDArray[np.float32],
    images: Sequence[int],
    neighbours: Sequence[Neighbours],
    calibration: Calibration,
    population: str,
    *,
    faces: int,
) -> list[EnrollWarning]:
    """The warnings of a call's faces, in their order.

    embeddings_ND: unit length. images: each face's image in the call. neighbours: as the gallery
    was before. faces: how many it had.
    """
    alike = strictest(
        calibration, population, lambda of: threshold_for_fpir(of, TARGET_FPIR, faces=faces)
    )
    unlike_below = threshold_for_fmr(calibration, UNLIKE_FMR).similarity
    similarity_NN = embeddings_ND @ embeddings_ND.T
    found = []
    for row, (image, near) in enumerate(zip(images, neighbours, strict=True)):
        if near.own is not None and near.own.similarity >= EMBEDDING_COSINE:
            found.append(_again(image, near.own))
        elif len(same := np.flatnonzero(similarity_NN[row, :row] >= EMBEDDING_COSINE)):
            text = f"images {images[same[0]]} and {image} of this call are the same photograph"
            found.append(EnrollWarning(AGAIN, text, image))
        if near.other is not None and decide(near.other.similarity, alike) == "match":
            found.append(_like_another(image, near.other, alike.similarity))
        beside = [float(value) for value in np.delete(similarity_NN[row], row)]
        beside += [] if near.own is None else [near.own.similarity]
        if beside and max(beside) < unlike_below:
            found.append(_unlike_own(image, max(beside), unlike_below))
    return found


def new_person(person_id: str) -> EnrollWarning:
    """The warning of an enrollment that named nobody."""
    text = f"no person_id was given, so a new person was made: {person_id}"
    return EnrollWarning(NEW_PERSON, text, person_id=person_id)


def not_compared(reason: str) -> EnrollWarning:
    """The warning of an enrollment into a gallery whose calibration cannot be used."""
    return EnrollWarning(NOT_COMPARED, f"the faces were compared with nobody's: {reason}")


def _again(image: int, own: NearestFace) -> EnrollWarning:
    text = (
        f"image {image} was enrolled for this person before, as face {own.face_id}: the same "
        "photograph again helps nobody to be found"
    )
    return EnrollWarning(AGAIN, text, image, None, own.face_id, own.similarity)


def _like_another(image: int, other: Candidate, limit: float) -> EnrollWarning:
    text = (
        f"image {image} is like person {other.person_id!r} of this gallery: similarity "
        f"{other.similarity:.3f}, a match from {limit:.3f} on. One person under two ids, or a "
        "photograph of somebody else?"
    )
    return EnrollWarning(
        LIKE_ANOTHER, text, image, other.person_id, other.face_id, other.similarity, limit
    )


def _unlike_own(image: int, similarity: float, limit: float) -> EnrollWarning:
    text = (
        f"image {image} is hardly like this person's other faces: similarity {similarity:.3f} at "
        f"most, and one stranger in {1 / UNLIKE_FMR:.0f} reaches {limit:.3f}. A photograph of "
        "somebody else?"
    )
    return EnrollWarning(UNLIKE_OWN, text, image, similarity=similarity, limit=limit)
