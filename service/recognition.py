"""The way of a photograph: image file -> faces -> crops -> embeddings -> candidates -> decision.

The one place that knows the order of the steps; the steps know nothing of each other. Each verb
takes an Engine and a call's images and gives plain records. The verbs are coroutines: photographs
are worked on in the engine's threads, crops of all calls meet in its batcher, the gallery is asked
in a thread of its own, and the event loop is free. A call that is cancelled leaves every line.

An image that cannot be used is an error in its Look, and the other images go on; what is wrong with
the call, the gallery or the service is raised.
"""

import asyncio
import dataclasses
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.calibration.kept import Calibrations
from service.decision import (
    Calibration,
    Threshold,
    decide,
    threshold_at,
    threshold_for_fmr,
    threshold_for_fpir,
)
from service.errors import (
    CalibrationError,
    CalibrationLost,
    EnrolmentRefused,
    FaceError,
    ImageError,
    NoFace,
    SeveralFaces,
    SpaceMismatch,
)
from service.gallery.contract import Candidate, Enrolment, Galleries, Idempotency, NewFace
from service.imagefile import read_photograph
from service.observe.stages import Stages
from service.vision.align import align_crops
from service.vision.faces import Face, Photograph
from service.vision.quality import Quality, assess_face, require_quality

MIN_FACE_PX: Final = 20
Image = bytes | ImageError
Pick = Literal["only", "largest"]
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Engine:
    """What the steps need, warm and ready.

    detect: (photograph, smallest face in px) -> faces, largest first. embed: uint8 crops
    (N, 112, 112, 3), N > 0 -> float32 (N, 512), unit length, to come. calibration: the model's own,
    calibrations: the user's. photographs: as many threads as photographs may be in memory at once.
    """

    detect: Callable[[Photograph, int], list[Face]]
    embed: Callable[[NDArray[np.uint8]], "Future[NDArray[np.float32]]"]
    galleries: Galleries
    calibration: Calibration
    calibrations: Calibrations
    photographs: Executor
    model: str
    space: str
    max_image_bytes: int
    max_pixels: int


@dataclass(frozen=True)
class SeenFace:
    """A face of an image and what its picture is worth. crop: uint8 (112, 112, 3) RGB."""

    face: Face
    quality: Quality
    crop: NDArray[np.uint8]


@dataclass(frozen=True)
class Look:
    """What was seen in one image: its faces, largest first, or the error that kept them."""

    width: int | None = None
    height: int | None = None
    faces: list[SeenFace] = field(default_factory=list)
    error: ImageError | FaceError | None = None


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
    """identities: for each look, one for each of its faces."""

    looks: list[Look]
    identities: list[list[Identity]]
    threshold: Threshold


@dataclass(frozen=True)
class Verified:
    """Whether two faces are of one person. similarity: their cosine, in [-1, 1]."""

    similarity: float
    decision: str
    threshold: Threshold
    faces: tuple[SeenFace, SeenFace]


@dataclass(frozen=True)
class Asked:
    """How the caller wants to be told yes from no; the value is a cosine or a rate."""

    by: Literal["threshold", "target_fmr", "target_fpir"]
    value: float


@dataclass(frozen=True)
class EnrolOrder:
    """Whom to enrol, and which faces will do."""

    gallery: str
    person_id: str | None
    name: str | None
    metadata: Mapping[str, Any] | None
    pick: Pick
    quality: str
    idempotency: Idempotency | None


@dataclass(frozen=True)
class Enrolled:
    """What became of each image: (its index, the face that was taken), (its index, why not)."""

    taken: list[tuple[int, SeenFace]]
    refused: list[tuple[int, ImageError | FaceError]]


async def detect(
    engine: Engine,
    images: Sequence[Image],
    stages: Stages,
    *,
    min_face_px: int = MIN_FACE_PX,
    limit: int | None = None,
) -> list[Look]:
    """The faces of each image, the largest `limit` of them."""
    return await _side_by_side(
        [_look(engine, image, stages, min_face_px, limit) for image in images]
    )


async def embed(engine: Engine, images: Sequence[Image], stages: Stages) -> list[Embedded]:
    """The faces of each image with their embeddings."""
    return await _side_by_side([_look_and_embed(engine, image, stages) for image in images])


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

    Raises GalleryUnknown, SpaceMismatch, CalibrationLost before any image is read.
    """
    threshold = await asyncio.to_thread(_threshold_in, engine, gallery, asked)
    embedded = await embed(engine, images, stages)
    candidates = await _search(
        engine, [one.embeddings_ND for one in embedded], stages, gallery, top_k
    )
    with stages.measure("decide"):
        identities = [
            [Identity(c, decide(c[0].similarity if c else None, threshold)) for c in of_image]
            for of_image in candidates
        ]
    return Identified([one.look for one in embedded], identities, threshold)


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

    Raises CalibrationUnknown, CalibrationUnfit; and the ImageError or FaceError of the first image
    that cannot be used, its `image` being image_a or image_b.
    """
    decides = engine.calibration
    if calibration is not None:
        kept = await asyncio.to_thread(engine.calibrations.get, calibration)
        decides = kept.fit(engine.space)
    threshold = _threshold(decides, asked, faces=1)
    looks = await detect(engine, images, stages)
    first, second = (
        _picked(look, pick, image=name)
        for look, name in zip(looks, ("image_a", "image_b"), strict=True)
    )
    a, b = await _embed(engine, [first, second], stages)
    similarity = float(np.clip(a @ b, -1, 1))
    with stages.measure("decide"):
        decision = decide(similarity, threshold)
    return Verified(similarity, decision, threshold, (first, second))


async def enroll(
    engine: Engine,
    images: Sequence[Image],
    stages: Stages,
    order: EnrolOrder,
    answer: Callable[[Enrolment, Enrolled], bytes],
) -> tuple[bytes, bool]:
    """The answer's bytes, and whether they were given before (the same Idempotency-Key).

    A face of each image is enrolled, those of usable images at once or not at all. Raises the error
    of a single image, EnrolmentRefused when there are several and none has a face that will do.
    """
    galleries = engine.galleries
    await asyncio.to_thread(galleries.get_gallery, order.gallery)
    if order.idempotency is not None:
        stored = await asyncio.to_thread(galleries.answered, order.gallery, order.idempotency)
        if stored is not None:
            return stored, True
    enrolled = _sorted_out(await detect(engine, images, stages), order)
    if not enrolled.taken:
        _refuse(enrolled)
    embeddings_ND = await _embed(engine, [seen for _, seen in enrolled.taken], stages)
    made: list[bytes] = []

    def answer_once(enrolment: Enrolment) -> bytes:
        made.append(answer(enrolment, enrolled))
        return made[-1]

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
                idempotency=order.idempotency,
            )

    return await asyncio.to_thread(store), not made


def face_details(seen: SeenFace) -> dict[str, Any]:
    """A face as plain data, as it is answered and kept: pixels to 0.01, measures to 4 digits."""
    box = seen.face.box
    return {
        "box": {
            "x": round(box.x, 2),
            "y": round(box.y, 2),
            "width": round(box.width, 2),
            "height": round(box.height, 2),
        },
        "confidence": round(seen.face.confidence, 4),
        "landmarks": [[round(x, 2), round(y, 2)] for x, y in seen.face.landmarks_52.tolist()],
        "quality": {k: float(f"{v:.4g}") for k, v in dataclasses.asdict(seen.quality).items()},
    }


async def _look(
    engine: Engine, image: Image, stages: Stages, min_face_px: int, limit: int | None
) -> Look:
    if isinstance(image, ImageError):
        return Look(error=image)
    return await asyncio.get_running_loop().run_in_executor(
        engine.photographs, _look_at, engine, image, stages, min_face_px, limit
    )


def _look_at(
    engine: Engine, data: bytes, stages: Stages, min_face_px: int, limit: int | None
) -> Look:
    try:
        with stages.measure("decode"):
            photograph = read_photograph(
                data, max_bytes=engine.max_image_bytes, max_pixels=engine.max_pixels
            )
    except ImageError as error:
        return Look(error=error)
    with stages.measure("detect"):
        faces = engine.detect(photograph, min_face_px)[:limit]
    with stages.measure("align"):
        crops = align_crops(photograph, [face.landmarks_52 for face in faces])
        seen = [
            SeenFace(face, assess_face(photograph, face, crop), crop)
            for face, crop in zip(faces, crops, strict=True)
        ]
    return Look(photograph.width, photograph.height, seen)


async def _look_and_embed(engine: Engine, image: Image, stages: Stages) -> Embedded:
    look = await _look(engine, image, stages, MIN_FACE_PX, None)
    return Embedded(look, await _embed(engine, look.faces, stages))


async def _embed(engine: Engine, faces: Sequence[SeenFace], stages: Stages) -> NDArray[np.float32]:
    if not faces:
        return np.empty((0, 512), np.float32)
    with stages.measure("embed"):
        return await asyncio.wrap_future(engine.embed(np.stack([seen.crop for seen in faces])))


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


def _threshold_in(engine: Engine, gallery: str, asked: Asked) -> Threshold:
    """What decides in a gallery, by the calibration it is bound to or else by the model's own."""
    record = engine.galleries.get_gallery(gallery)
    if record.space not in (None, engine.space):
        raise SpaceMismatch(gallery, value=engine.space, limit=str(record.space))
    calibration = engine.calibration
    if record.calibration is not None:
        try:
            calibration = engine.calibrations.get(record.calibration).fit(engine.space)
        except CalibrationError as error:
            raise CalibrationLost(gallery, record.calibration, str(error)) from error
    return _threshold(calibration, asked, record.faces)


def _threshold(calibration: Calibration, asked: Asked, faces: int) -> Threshold:
    """The threshold as asked for. faces: how many a search compares with."""
    if asked.by == "threshold":
        return threshold_at(calibration, asked.value)
    if asked.by == "target_fmr":
        return threshold_for_fmr(calibration, asked.value)
    return threshold_for_fpir(calibration, asked.value, faces=faces)


def _picked(look: Look, pick: Pick, *, image: str | None = None) -> SeenFace:
    """The face that is meant. Raises the look's error, NoFace, SeveralFaces."""
    if look.error is not None:
        raise dataclasses.replace(look.error, image=image)
    if not look.faces:
        raise NoFace(MIN_FACE_PX, image=image)
    if pick == "only" and len(look.faces) > 1:
        boxes = [face_details(seen)["box"] for seen in look.faces]
        raise SeveralFaces(len(boxes), 1, boxes, image=image)
    return look.faces[0]


def _sorted_out(looks: Sequence[Look], order: EnrolOrder) -> Enrolled:
    enrolled = Enrolled([], [])
    for index, look in enumerate(looks):
        try:
            seen = _picked(look, order.pick)
            require_quality(seen.quality, order.quality)
        except (ImageError, FaceError) as error:
            enrolled.refused.append((index, error))
        else:
            enrolled.taken.append((index, seen))
    return enrolled


def _refuse(enrolled: Enrolled) -> None:
    if len(enrolled.refused) == 1:
        raise enrolled.refused[0][1]
    refused = [{"image": index, "problem": error} for index, error in enrolled.refused]
    raise EnrolmentRefused(len(refused), refused)


async def _side_by_side(
    works: Sequence[Coroutine[Any, Any, _Result]],
) -> list[_Result]:
    """The results in order; the first failure ends the others."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
