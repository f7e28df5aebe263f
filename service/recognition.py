"""The way of a photograph: image file -> faces -> crops -> embeddings -> candidates -> decision.

With look.py, its first half, and analysis.py, the other way to end, the one place that knows the
order of the steps; the steps know nothing of each other. Each verb takes an Engine and a call's
images and gives plain records. The verbs are coroutines: photographs are worked on in the engine's
threads, crops of all calls meet in its batchers, the gallery is asked in a thread of its own, and
the event loop is free. A call that is cancelled leaves every line.

An image that cannot be used is an error in its Look, and the other images go on; what is wrong with
the call, the gallery or the service is raised.
"""

import asyncio
import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from service.decision import (
    Calibration,
    Threshold,
    decide,
    seen_by,
    strictest,
    threshold_at,
    threshold_for_fmr,
    threshold_for_fpir,
)
from service.enrollment_warnings import (
    LIKE_ANOTHER,
    EnrollWarning,
    Neighbours,
    find_warnings,
    new_person,
    not_compared,
)
from service.errors import (
    CalibrationError,
    CalibrationLost,
    EnrolmentRefused,
    FaceError,
    ImageError,
    NoFace,
    PopulationUnknown,
    SeveralFaces,
    SpaceMismatch,
    without_frames,
)
from service.gallery.contract import (
    Candidate,
    Enrolment,
    GalleryRecord,
    Idempotency,
    NearestFace,
    NewFace,
)
from service.look import (
    MIN_FACE_PX,
    Engine,
    Image,
    Look,
    SeenFace,
    face_details,
    look,
    side_by_side,
)
from service.observe.stages import Stages
from service.vision.align import IDENTITY_CANVAS
from service.vision.quality import require_quality

MOST_CANDIDATES: Final = 10_000  # of a call, over all its faces
TO_EMBED: Final = {"identity": IDENTITY_CANVAS}  # the crops that embeddings are made of
Pick = Literal["only", "largest"]


@dataclass(frozen=True)
class Embedded:
    """A look with the embeddings of its faces, float32 (N, 512), unit length."""

    look: Look
    embeddings_ND: NDArray[np.float32]


@dataclass(frozen=True)
class Identity:
    """Who a face may be, most similar first, and what follows at the threshold."""

    candidates: list[Candidate]
    decision: str


@dataclass(frozen=True)
class Identified:
    """identities: for each look, one for each of its faces, each with top_k candidates at most."""

    looks: list[Look]
    identities: list[list[Identity]]
    threshold: Threshold
    top_k: int


@dataclass(frozen=True)
class Verified:
    """Whether two faces are of one person. similarity: their cosine, in [-1, 1]."""

    similarity: float
    decision: str
    threshold: Threshold
    faces: tuple[SeenFace, SeenFace]


@dataclass(frozen=True)
class Asked:
    """How the caller wants to be told yes from no; the value is a cosine or a rate.

    population: whose FMR is meant; None for the gallery's, else the service's own."""

    by: Literal["threshold", "target_fmr", "target_fpir"]
    value: float
    population: str | None = None


@dataclass(frozen=True)
class EnrolOrder:
    """Whom to enrol, and which faces will do.

    name_if_new: the name of a person who is made; somebody who is there keeps theirs. may_identify:
    whether the caller may be told who in the gallery a face is like.
    """

    gallery: str
    person_id: str | None
    name: str | None
    metadata: Mapping[str, Any] | None
    pick: Pick
    quality: str
    idempotency: Idempotency | None
    consent: Mapping[str, Any] | None = None
    name_if_new: str | None = None
    may_identify: bool = True


@dataclass(frozen=True)
class Enrolled:
    """What became of each image: (its index, the face that was taken), (its index, why not)."""

    taken: list[tuple[int, SeenFace]]
    refused: list[tuple[int, ImageError | FaceError]]
    warnings: list[EnrollWarning] = field(default_factory=list)


async def detect(
    engine: Engine,
    images: Sequence[Image],
    stages: Stages,
    *,
    min_face_px: int = MIN_FACE_PX,
    limit: int | None = None,
) -> list[Look]:
    """The faces of each image, the largest `limit` of them."""
    return await side_by_side(
        [look(engine, image, stages, {}, min_face_px=min_face_px, limit=limit) for image in images]
    )


async def embed(engine: Engine, images: Sequence[Image], stages: Stages) -> list[Embedded]:
    """The faces of each image with their embeddings."""
    return await side_by_side([_look_and_embed(engine, image, stages) for image in images])


async def identify(
    engine: Engine,
    images: Sequence[Image],
    stages: Stages,
    *,
    gallery: str,
    top_k: int,
    asked: Asked,
) -> Identified:
    """The gallery's people most like each face, decided by the calibration it is bound to.

    Raises GalleryUnknown, SpaceMismatch, CalibrationLost, PopulationUnknown before any image is
    read.
    """
    threshold = await asyncio.to_thread(threshold_in, engine, gallery, asked)
    embedded = await embed(engine, images, stages)
    embeddings = [one.embeddings_ND for one in embedded]
    top_k = fitting_top_k(top_k, faces=sum(map(len, embeddings)))
    identities = await identities_of(
        engine, embeddings, stages, gallery=gallery, top_k=top_k, threshold=threshold
    )
    return Identified([one.look for one in embedded], identities, threshold, top_k)


def fitting_top_k(top_k: int, *, faces: int) -> int:
    """The candidates per face: those asked for, or as many as MOST_CANDIDATES leave to each of so
    many faces; at least one."""
    return max(1, min(top_k, MOST_CANDIDATES // max(1, faces)))


async def verify(
    engine: Engine,
    images: tuple[Image, Image],
    stages: Stages,
    *,
    pick: Pick,
    asked: Asked,
    calibration: str | None = None,
) -> Verified:
    """Whether the faces of two images are of one person. calibration: a user's; else the model's.

    Raises CalibrationUnknown, CalibrationUnfit, PopulationUnknown; and the ImageError or FaceError
    of the first image that cannot be used, its `image` being image_a or image_b.
    """
    decides = engine.calibration
    if calibration is not None:
        kept = await asyncio.to_thread(engine.calibrations.get, calibration)
        decides = kept.fit(engine.space)
    threshold = _threshold(decides, asked, asked.population or engine.population, faces=1)
    looks = await side_by_side([look(engine, image, stages, TO_EMBED) for image in images])
    first, second = (
        _picked(seen, pick, image=name)
        for seen, name in zip(looks, ("image_a", "image_b"), strict=True)
    )
    a, b = await embed_faces(engine, [first, second], stages)
    similarity = float(np.clip(a @ b, -1, 1))
    with stages.measure("decide"):
        decision = decide(similarity, threshold)
    stages.decided(decision)
    return Verified(similarity, decision, threshold, (first, second))


async def enroll(
    engine: Engine,
    images: Sequence[Image],
    stages: Stages,
    order: EnrolOrder,
    answer: Callable[[Enrolment, Enrolled], bytes],
) -> tuple[bytes, bool]:
    """The answer's bytes, and whether they were given before (the same Idempotency-Key).

    A face of each image is enrolled, those of usable images at once or not at all. Raises
    GalleryUnknown and SpaceMismatch before an image is read or an earlier answer given: that would
    name faces which nobody can find. Raises the error of a single image, EnrolmentRefused when
    there are several and none has a face that will do.
    """
    galleries = engine.galleries
    _require_space(engine, await asyncio.to_thread(galleries.get_gallery, order.gallery))
    if order.idempotency is not None:
        stored = await asyncio.to_thread(galleries.answered, order.gallery, order.idempotency)
        if stored is not None:
            return stored, True
    looks = await side_by_side([look(engine, image, stages, TO_EMBED) for image in images])
    enrolled = _sorted_out(looks, order)
    if not enrolled.taken:
        _refuse(enrolled)
    embeddings_ND = await embed_faces(engine, [seen for _, seen in enrolled.taken], stages)
    images_N = [image for image, _ in enrolled.taken]
    warnings = await asyncio.to_thread(_warnings, engine, embeddings_ND, images_N, stages, order)
    made: list[bytes] = []

    def answer_once(enrolment: Enrolment) -> bytes:
        unnamed = [] if order.person_id is not None else [new_person(enrolment.person.id)]
        told = [*unnamed, *warnings]
        kept = [warning for warning in told if warning.type != LIKE_ANOTHER]
        made.append(answer(enrolment, dataclasses.replace(enrolled, warnings=told)))
        if len(kept) == len(told):
            return made[-1]
        # What is kept is erased with this person alone, so it must name nobody else.
        return answer(enrolment, dataclasses.replace(enrolled, warnings=kept))

    def store() -> bytes:
        with stages.measure("store"):
            return galleries.enroll(
                order.gallery,
                [
                    NewFace(embedding, face_details(seen))
                    for embedding, (_, seen) in zip(embeddings_ND, enrolled.taken, strict=True)
                ],
                space=engine.space,
                answer=answer_once,
                person_id=order.person_id,
                name=order.name,
                metadata=order.metadata,
                consent=order.consent,
                name_if_new=order.name_if_new,
                idempotency=order.idempotency,
            )

    kept = await engine.writers.run(store)
    return (made[-1], False) if made else (kept, True)


def _warnings(
    engine: Engine,
    embeddings_ND: NDArray[np.float32],
    images: Sequence[int],
    stages: Stages,
    order: EnrolOrder,
) -> list[EnrollWarning]:
    """Warnings about the faces that are about to be enrolled."""
    galleries, gallery = engine.galleries, order.gallery
    record = galleries.get_gallery(gallery)
    try:
        calibration = _calibration_in(engine, record)
        population = record.population or engine.population
        seen_by(calibration, population)
    except (CalibrationLost, PopulationUnknown) as error:
        return [not_compared(str(error))]
    with stages.measure("search"):
        own: Sequence[NearestFace | None] = [None] * len(images)
        if order.person_id is not None:
            own = galleries.search_person(
                gallery, order.person_id, space=engine.space, embeddings_ND=embeddings_ND
            )
        best_two: Sequence[Sequence[Candidate]] = [[]] * len(images)
        if order.may_identify:
            best_two = galleries.search(
                gallery, space=engine.space, embeddings_ND=embeddings_ND, top_k=2
            )
    neighbours = [
        Neighbours(mine, next((c for c in best if c.person_id != order.person_id), None))
        for mine, best in zip(own, best_two, strict=True)
    ]
    return find_warnings(
        embeddings_ND, images, neighbours, calibration, population, faces=record.faces
    )


async def _look_and_embed(engine: Engine, image: Image, stages: Stages) -> Embedded:
    seen = await look(engine, image, stages, TO_EMBED)
    return Embedded(seen, await embed_faces(engine, seen.faces, stages))


async def embed_faces(
    engine: Engine, faces: Sequence[SeenFace], stages: Stages
) -> NDArray[np.float32]:
    """The embeddings of faces that were seen with the crops TO_EMBED: float32 (N, 512)."""
    if not faces:
        return np.empty((0, 512), np.float32)
    with stages.measure("embed"):
        crops_N = np.stack([seen.crops["identity"] for seen in faces])
        return await asyncio.wrap_future(engine.embed(crops_N))


async def identities_of(
    engine: Engine,
    embeddings: Sequence[NDArray[np.float32]],
    stages: Stages,
    *,
    gallery: str,
    top_k: int,
    threshold: Threshold,
) -> list[list[Identity]]:
    """For each image's embeddings, for each of its faces, who it may be and what follows."""
    candidates = await _search(engine, embeddings, stages, gallery, top_k)
    with stages.measure("decide"):
        identities = [
            [Identity(c, decide(c[0].similarity if c else None, threshold)) for c in of_image]
            for of_image in candidates
        ]
    for identity in itertools.chain(*identities):
        best = identity.candidates[0].similarity if identity.candidates else None
        stages.decided(identity.decision, best)
    return identities


async def _search(
    engine: Engine,
    embeddings: Sequence[NDArray[np.float32]],
    stages: Stages,
    gallery: str,
    top_k: int,
) -> list[list[list[Candidate]]]:
    """For each image, for each of its faces, the candidates: one search for all of them."""

    def search() -> list[list[Candidate]]:
        with stages.measure("search"):
            return engine.galleries.search(
                gallery,
                space=engine.space,
                embeddings_ND=np.concatenate(embeddings),
                top_k=top_k,
            )

    rows = iter(await asyncio.to_thread(search))
    return [[next(rows) for _ in of_image] for of_image in embeddings]


def threshold_in(engine: Engine, gallery: str, asked: Asked) -> Threshold:
    """What decides in a gallery, by the calibration it is bound to or else by the model's own.

    Raises GalleryUnknown, SpaceMismatch, CalibrationLost, PopulationUnknown."""
    record = engine.galleries.get_gallery(gallery)
    _require_space(engine, record)
    population = asked.population or record.population or engine.population
    return _threshold(_calibration_in(engine, record), asked, population, faces=record.faces)


def _require_space(engine: Engine, gallery: GalleryRecord) -> None:
    if gallery.space not in (None, engine.space):
        raise SpaceMismatch(gallery.name, value=engine.space, limit=str(gallery.space))


def _calibration_in(engine: Engine, gallery: GalleryRecord) -> Calibration:
    """The calibration that the gallery decides by. Raises CalibrationLost."""
    if gallery.calibration is None:
        return engine.calibration
    try:
        return engine.calibrations.get(gallery.calibration).fit(engine.space)
    except CalibrationError as error:
        raise CalibrationLost(gallery.name, gallery.calibration, str(error)) from error


def _threshold(calibration: Calibration, asked: Asked, population: str, *, faces: int) -> Threshold:
    """The threshold as asked for, of the population. faces: how many a search compares with.

    Raises PopulationUnknown."""

    def of(population: Calibration) -> Threshold:
        if asked.by == "threshold":
            return threshold_at(population, asked.value)
        if asked.by == "target_fmr":
            return threshold_for_fmr(population, asked.value)
        return threshold_for_fpir(population, asked.value, faces=faces)

    return strictest(calibration, population, of)


def _picked(seen: Look, pick: Pick, *, image: str | None = None) -> SeenFace:
    """The face that is meant. Raises the look's error, NoFace, SeveralFaces."""
    if seen.error is not None:
        raise dataclasses.replace(seen.error, image=image)
    if not seen.faces:
        raise NoFace(MIN_FACE_PX, image=image)
    if pick == "only" and len(seen.faces) > 1:
        boxes = [face_details(face)["box"] for face in seen.faces]
        raise SeveralFaces(len(boxes), 1, boxes, image=image)
    return seen.faces[0]


def _sorted_out(looks: Sequence[Look], order: EnrolOrder) -> Enrolled:
    enrolled = Enrolled([], [])
    for index, of_image in enumerate(looks):
        try:
            seen = _picked(of_image, order.pick)
            require_quality(seen.quality, order.quality)
        except (ImageError, FaceError) as error:
            enrolled.refused.append((index, without_frames(error)))
        else:
            enrolled.taken.append((index, seen))
    return enrolled


def _refuse(enrolled: Enrolled) -> None:
    if len(enrolled.refused) == 1:
        raise enrolled.refused[0][1]
    refused = [{"image": index, "problem": error} for index, error in enrolled.refused]
    raise EnrolmentRefused(len(refused), refused)
