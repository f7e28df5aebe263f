"""The way of a photograph for analyses: image file -> faces -> whatever is asked of each of them.

One decode and one detection, however many features; of each face the crops of those features that
were asked for and no others. Every network has a batcher of its own, and the faces of an image are
in all of them at the same time. What holds for the verbs of recognition.py holds here too; besides,
a face that a feature cannot tell is refused for that feature, and the rest of it goes on.
"""

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.decision import Threshold
from service.errors import FaceTooSmall, FeatureOff
from service.look import Classifier, Engine, Image, Look, SeenFace, look, side_by_side
from service.observe.stages import Stages
from service.recognition import (
    TO_EMBED,
    Asked,
    Identity,
    embed_faces,
    fitting_top_k,
    identities_of,
    threshold_in,
)
from service.vision.quality import checks

LEVELS: Final = ("standard", "strict")  # of quality's gates
PRESENT: Final = 0.5  # the score from which an attribute is there
EMBEDDED: Final = {"identity", "embedding"}  # features that need a face's embedding
# What can be switched off, by which setting, and why somebody does.
SWITCHES: Final = {
    "expression": (
        "MIEN_EXPRESSION",
        "the EU AI Act (Regulation (EU) 2024/1689, Article 5(1)(f)) forbids inferring emotions at "
        "work and in education; Mien names expressions, not emotions",
    ),
    "attributes": ("MIEN_ATTRIBUTES", "whoever runs this service does without them"),
}


@dataclass(frozen=True)
class Expression:
    """What a face shows. label: the class of the highest score, which is the confidence.

    scores: a distribution, by class.
    """

    label: str
    confidence: float
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Attribute:
    """Whether an attribute is there. confidence: of that answer, in [0.5, 1]. reliable: whether it
    was found to be told better than by chance."""

    present: bool
    confidence: float
    reliable: bool


@dataclass(frozen=True)
class Search:
    """Where the feature `identity` looks for whom."""

    gallery: str
    top_k: int
    asked: Asked


@dataclass(frozen=True)
class FoundFace:
    """A face and what was found of it; None for what was not asked for, or was refused.

    embedding: float32 (512,), of unit length. refused: by feature, why it was not answered.
    """

    seen: SeenFace
    expression: Expression | None = None
    attributes: Mapping[str, Attribute] | None = None
    embedding: NDArray[np.float32] | None = None
    identity: Identity | None = None
    refused: Mapping[str, FaceTooSmall] = field(default_factory=dict)


@dataclass(frozen=True)
class Analysed:
    """faces: for each look, what was found of each of its faces. threshold: of identities, each
    with top_k candidates at most."""

    looks: list[Look]
    faces: list[list[FoundFace]]
    threshold: Threshold | None
    top_k: int | None


async def analyze(
    engine: Engine,
    images: Sequence[Image],
    stages: Stages,
    features: Collection[str],
    search: Search | None = None,
) -> Analysed:
    """What was found of the faces of each image. search: for the feature `identity`, and only then.

    Raises FeatureOff, GalleryUnknown, SpaceMismatch, CalibrationLost before any image is read.
    """
    for feature in features:
        require_on(engine, feature)
    threshold = None
    if search is not None:
        threshold = await asyncio.to_thread(threshold_in, engine, search.gallery, search.asked)
    scored = await side_by_side([_scored(engine, image, stages, features) for image in images])
    identities: list[list[Identity]] = []
    top_k = None
    if search is not None and threshold is not None:
        embeddings = [one.rows["embedding"] for one in scored]
        top_k = fitting_top_k(search.top_k, faces=sum(map(len, embeddings)))
        identities = await identities_of(
            engine,
            embeddings,
            stages,
            gallery=search.gallery,
            top_k=top_k,
            threshold=threshold,
        )
    found = [_found(engine, one, of_image) for one, of_image in zip_longest(scored, identities)]
    return Analysed([one.look for one in scored], found, threshold, top_k)


def gate_details(seen: SeenFace) -> dict[str, Any]:
    """How a face fares at each gate of /enroll, by level, as plain data, as it is answered."""
    asked = {level: checks(seen.quality, level) for level in LEVELS}
    return {
        level: {
            "passed": all(check.passed for check in of_level),
            "checks": [{**vars(c), "value": float(f"{c.value:.4g}")} for c in of_level],
        }
        for level, of_level in asked.items()
    }


def require_on(engine: Engine, feature: str) -> None:
    """Nothing, when the feature is there to be asked; raises FeatureOff else."""
    if feature in SWITCHES and feature not in engine.classifiers:
        setting, reason = SWITCHES[feature]
        raise FeatureOff(feature, setting, reason)


@dataclass(frozen=True)
class _Scored:
    """A look and what each network gave for those of its faces that it could be asked about."""

    look: Look
    rows: Mapping[str, NDArray[np.float32]]


async def _scored(
    engine: Engine, image: Image, stages: Stages, features: Collection[str]
) -> _Scored:
    asked = {name: one for name, one in engine.classifiers.items() if name in features}
    embeds = not EMBEDDED.isdisjoint(features)
    crops = {name: classifier.canvas for name, classifier in asked.items()}
    seen = await look(engine, image, stages, {**crops, **(TO_EMBED if embeds else {})})
    works = {name: _scores(one, name, seen.faces, stages) for name, one in asked.items()}
    if embeds:
        works["embedding"] = embed_faces(engine, seen.faces, stages)
    rows = await side_by_side(list(works.values()))
    return _Scored(seen, dict(zip(works, rows, strict=True)))


async def _scores(
    classifier: Classifier, feature: str, faces: Sequence[SeenFace], stages: Stages
) -> NDArray[np.float32]:
    """The scores of those of the faces that are large enough: float32 (N, K)."""
    large = [seen for seen in faces if _too_small(classifier, feature, seen) is None]
    if not large:
        return np.empty((0, len(classifier.classes)), np.float32)
    with stages.measure(feature):
        crops_N = np.stack([seen.crops[feature] for seen in large])
        return await asyncio.wrap_future(classifier.scores(crops_N))


def _too_small(classifier: Classifier, feature: str, seen: SeenFace) -> FaceTooSmall | None:
    value, limit = seen.face.inter_eye_px, classifier.min_inter_eye_px
    return FaceTooSmall(feature, value, limit) if value < limit else None


def _found(
    engine: Engine, scored: _Scored, identities: Sequence[Identity] | None
) -> list[FoundFace]:
    """What was found of each face of a look. identities: one for each, where they were asked."""
    rows = {network: iter(rows_ND) for network, rows_ND in scored.rows.items()}
    named = iter(identities or ())
    return [_found_of(engine, seen, rows, next(named, None)) for seen in scored.look.faces]


def _found_of(
    engine: Engine,
    seen: SeenFace,
    rows: Mapping[str, Iterator[NDArray[np.float32]]],
    identity: Identity | None,
) -> FoundFace:
    asked = {name: one for name, one in engine.classifiers.items() if name in rows}
    refused = {n: error for n, one in asked.items() if (error := _too_small(one, n, seen))}
    scores = {
        name: dict(zip(one.classes, next(rows[name]).tolist(), strict=True))
        for name, one in asked.items()
        if name not in refused
    }
    return FoundFace(
        seen,
        expression=_expression(scores["expression"]) if "expression" in scores else None,
        attributes=_attributes(engine, scores["attributes"]) if "attributes" in scores else None,
        embedding=next(rows["embedding"]) if "embedding" in rows else None,
        identity=identity,
        refused=refused,
    )


def _expression(scores: Mapping[str, float]) -> Expression:
    label = max(scores, key=scores.__getitem__)
    return Expression(label, scores[label], scores)


def _attributes(engine: Engine, scores: Mapping[str, float]) -> dict[str, Attribute]:
    reliable = engine.classifiers["attributes"].reliable
    return {
        name: Attribute(score >= PRESENT, max(score, 1 - score), name in reliable)
        for name, score in scores.items()
    }
