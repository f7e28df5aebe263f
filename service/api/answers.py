"""Records into answers: the shapes of schemas.py out of what recognition and the gallery give."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.analysis import Attribute, Expression, FoundFace
from service.api import schemas
from service.api.problems import problem_of
from service.calibration.kept import Kept
from service.decision import Calibration, OperatingPoint, Threshold, operating_points, rate_at
from service.enrollment_warnings import EnrollWarning
from service.errors import CalibrationError
from service.gallery.contract import (
    Candidate,
    Consent,
    FaceRecord,
    GalleryRecord,
    Page,
    PersonRecord,
)
from service.look import Look, SeenFace, face_details
from service.recognition import Identity

_CURVES: Final = ("curve", "tail")  # left to the file, as those of all but the model's own people
Record = TypeVar("Record")
Answer = TypeVar("Answer")


def images_of(
    looks: Sequence[Look], faces: Callable[[int], Sequence[Any]]
) -> list[schemas.Image[Any]]:
    """An entry for each image; faces: those of the image with an index, as they are answered.

    Raises the error of an image that is the only one of its call.
    """
    if len(looks) == 1 and looks[0].error is not None:
        raise looks[0].error
    return [_image_of(index, look, faces(index)) for index, look in enumerate(looks)]


def _image_of(index: int, look: Look, faces: Sequence[Any]) -> schemas.Image[Any]:
    entry: schemas.Image[Any] = {
        "index": index,
        "width": look.width,
        "height": look.height,
        "error": None if look.error is None else problem_of(look.error),  # type: ignore[typeddict-item]
        "faces": list(faces),
    }
    return {**entry, "truncated": True} if look.truncated else entry


def face_of(seen: SeenFace) -> schemas.Face:
    """A face."""
    face: schemas.Face = face_details(seen)  # type: ignore[assignment]
    return face


def expression_of(found: Expression | None) -> schemas.Expression | None:
    """An expression; None where it was refused."""
    if found is None:
        return None
    return {
        "label": found.label,
        "confidence": _score(found.confidence),
        "scores": {name: _score(score) for name, score in found.scores.items()},
    }


def attributes_of(
    found: Mapping[str, Attribute] | None, *, include_unreliable: bool
) -> dict[str, schemas.Attribute] | None:
    """Attributes, unreliable ones where they are asked for; None where they were refused."""
    if found is None:
        return None
    return {
        name: _attribute(attribute)
        for name, attribute in found.items()
        if attribute.reliable or include_unreliable
    }


def _attribute(found: Attribute) -> schemas.Attribute:
    answer: schemas.Attribute = {
        "present": found.present,
        "confidence": _score(found.confidence),
    }
    return answer if found.reliable else {**answer, "reliable": False}


def _score(score: float) -> float:
    """A score with the digits that it has."""
    return round(score, 6)


def refused_of(found: FoundFace) -> list[schemas.RefusedFeature]:
    """The features that were not answered for a face."""
    return [
        {"feature": feature, "problem": problem_of(error)}  # type: ignore[typeddict-item]
        for feature, error in found.refused.items()
    ]


def identity_of(identity: Identity) -> dict[str, Any]:
    """Who a face may be: its fields in an answer."""
    return {
        "decision": identity.decision,
        "candidates": [candidate_of(candidate) for candidate in identity.candidates],
    }


def candidates_of(top_k: int | None, asked: int) -> dict[str, int]:
    """The field that says that each face has fewer candidates than were asked for; else none."""
    return {} if top_k is None or top_k >= asked else {"candidates_per_face": top_k}


def embedding_of(embedding: NDArray[np.float32]) -> list[float]:
    """An embedding; float32 has no more than the nine digits that are written."""
    return [round(value, 9) for value in embedding.tolist()]


def candidate_of(candidate: Candidate) -> schemas.Candidate:
    """A candidate."""
    return {
        "person_id": candidate.person_id,
        "name": candidate.name,
        "face_id": candidate.face_id,
        "similarity": cosine_of(candidate.similarity),
    }


def cosine_of(similarity: float) -> float:
    """A similarity with the digits that it has, within the bounds that rounding may leave."""
    return min(1.0, max(-1.0, round(similarity, 6)))


def warning_of(warning: EnrollWarning) -> schemas.EnrollWarning:
    """A warning, with the fields that it has."""
    fields = {key: value for key, value in vars(warning).items() if value is not None}
    cosines = {key: cosine_of(fields[key]) for key in ("similarity", "limit") if key in fields}
    return {**fields, **cosines}  # type: ignore[typeddict-item]


def threshold_of(threshold: Threshold) -> schemas.Threshold:
    """The threshold that decided."""
    return {
        "similarity": round(threshold.similarity, 6),
        "by": threshold.by,
        "target": threshold.target,
        "interval": [_rate(rate) for rate in threshold.interval],
        "extrapolated": threshold.extrapolated,
        "calibration": threshold.calibration,
        "population": threshold.population,
        "fnmr": _rate(threshold.fnmr),
        "fnmr_interval": [_rate(rate) for rate in threshold.fnmr_interval],
    }


def thresholds_of(calibration: Calibration) -> list[schemas.OperatingPoint]:
    """The thresholds by target FMR, and what each costs."""
    rows = (dataclasses.asdict(point) for point in operating_points(calibration))
    return [
        {k: v if isinstance(v, bool) else _rate(v) for k, v in row.items()}  # type: ignore[misc]
        for row in rows
    ]


def populations_of(calibration: Calibration, block: Mapping[str, Any]) -> list[schemas.Population]:
    """The calibration's people and its other populations side by side; block: as its file or the
    manifest has it."""
    facts = block.get("populations", {})
    cuts = operating_points(calibration)
    return [
        {
            **{k: v for k, v in facts.get(one.population, {}).items() if k not in _CURVES},
            "name": one.population,
            "crops": one.crops,
            "smallest_fmr": one.smallest_fmr,
            "thresholds": thresholds_of(one),
            "at_calibration_thresholds": [_false_matches(one, cut) for cut in cuts],
        }
        for one in (calibration, *calibration.populations.values())
    ]


def _false_matches(population: Calibration, cut: OperatingPoint) -> schemas.FalseMatches:
    fmr, low, high = (
        _rate(rate_at(population, rate_G, cut.similarity))
        for rate_G in (population.fmr_G, population.fmr_low_G, population.fmr_high_G)
    )
    return {
        "target_fmr": cut.target_fmr,
        "similarity": _rate(cut.similarity),
        "fmr": fmr,
        "fmr_low": low,
        "fmr_high": high,
    }


def own_calibration_of(
    name: str, kept: Kept | CalibrationError, galleries: Sequence[str]
) -> schemas.OwnCalibration:
    """A calibration of the user's own, or why there is none; its curve is left to its file."""
    answer: schemas.OwnCalibration = {
        "name": name,
        "galleries": list(galleries),
        "problem": None,
        "thresholds": [],
        "populations": [],
    }
    if isinstance(kept, CalibrationError):
        return {**answer, "problem": problem_of(kept)}  # type: ignore[typeddict-item]
    facts = {k: v for k, v in kept.facts.items() if k not in _CURVES}
    return {
        **facts,  # type: ignore[typeddict-item]
        **answer,
        "thresholds": thresholds_of(kept.calibration),
        "populations": populations_of(kept.calibration, kept.facts),
    }


def gallery_of(gallery: GalleryRecord) -> schemas.Gallery:
    """A gallery."""
    return {
        "name": gallery.name,
        "space": gallery.space,
        "calibration": gallery.calibration,
        "population": gallery.population,
        "metadata": dict(gallery.metadata),
        "persons": gallery.persons,
        "faces": gallery.faces,
        "retention_days": gallery.retention_days,
        "requires_consent": gallery.requires_consent,
        "created": gallery.created.isoformat(),
    }


def enrolled_person_of(person: PersonRecord) -> schemas.EnrolledPerson:
    """A person as an enrolment answers them."""
    return {
        "id": person.id,
        "name": person.name,
        "metadata": dict(person.metadata),
        "faces": person.faces,
    }


def person_of(person: PersonRecord) -> schemas.Person:
    """A person."""
    return {
        **enrolled_person_of(person),
        "created": person.created.isoformat(),
        "updated": person.updated.isoformat(),
        "consent": None if person.consent is None else _consent_of(person.consent),
        "expires": None if person.expires is None else person.expires.isoformat(),
    }


def _consent_of(consent: Consent) -> schemas.Consent:
    return {
        "basis": consent.basis,
        "time": consent.time.isoformat(),
        "reference": consent.reference,
    }


def person_face_of(face: FaceRecord) -> schemas.PersonFace:
    """An enrolled face: what was kept of it when it was enrolled."""
    answer: schemas.PersonFace = {
        "box": None,
        "confidence": None,
        "landmarks": None,
        "quality": None,
        **face.details,  # type: ignore[typeddict-item]
        "id": face.id,
        "person_id": face.person_id,
        "created": face.created.isoformat(),
    }
    return answer


def page_of(page: Page[Record], answer: Callable[[Record], Answer]) -> schemas.Page[Answer]:
    """A page with its items as they are answered."""
    return {"items": [answer(item) for item in page.items], "next": page.next_cursor}


def _rate(rate: float) -> float:
    """A rate, or a threshold, with the digits that it has."""
    return float(f"{rate:.4g}")
