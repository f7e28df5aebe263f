"""The first half of every way: image file -> photograph -> faces, with the crops that are wanted.

The Engine and what is seen with it. Photographs are worked on in the engine's threads, crops of all
calls meet in its batchers, and the event loop is free.
"""

import asyncio
import dataclasses
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.calibration.kept import Calibrations
from service.decision import OWN_PEOPLE, Calibration
from service.errors import FaceError, ImageError, without_frames
from service.gallery.contract import Galleries
from service.imagefile import read_photograph
from service.imagefile.size import declared_pixels
from service.memory import out_of_memory_told
from service.observe.stages import Stages
from service.vision.align import IDENTITY_CANVAS, Canvas, align_crops
from service.vision.faces import Face, Photograph
from service.vision.quality import Quality, assess_face
from service.writers import Writers

MIN_FACE_PX: Final = 20
LIGHT_PIXELS: Final = 2_100_000  # a frame of HD video
Image = bytes | ImageError
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Classifier:
    """A network that scores faces. scores: uint8 crops of the canvas, (N, height, width, 3), N > 0
    -> float32 (N, K) in [0, 1], to come.

    classes: the names of the K. reliable: those to be trusted. A face whose eyes are less than
    min_inter_eye_px apart in the photograph is not to be asked about.
    """

    name: str
    scores: Callable[[NDArray[np.uint8]], "Future[NDArray[np.float32]]"]
    canvas: Canvas
    classes: tuple[str, ...]
    reliable: frozenset[str]
    min_inter_eye_px: float


@dataclass(frozen=True)
class Engine:
    """What the steps need, warm and ready.

    detect: (photograph, smallest face in px) -> faces, largest first. embed: uint8 crops
    (N, 112, 112, 3), N > 0 -> float32 (N, 512), unit length, to come. classifiers: by what they
    tell, expression and attributes, without those that are off. calibration: the model's own,
    calibrations: the user's. population: whose FMR decides if neither call nor gallery names one.
    photographs: as many threads as photographs may be in memory at once. max_faces: of an image,
    the largest; others are found, and no more is done with them.
    writers: the threads that change the galleries.
    """

    detect: Callable[[Photograph, int], list[Face]]
    embed: Callable[[NDArray[np.uint8]], "Future[NDArray[np.float32]]"]
    classifiers: Mapping[str, Classifier]
    galleries: Galleries
    calibration: Calibration
    calibrations: Calibrations
    photographs: Executor
    writers: Writers
    model: str
    space: str
    max_image_bytes: int
    max_pixels: int
    population: str = OWN_PEOPLE
    max_faces: int = 256


@dataclass(frozen=True)
class SeenFace:
    """A face of an image and what its picture is worth.

    crops: uint8 (height, width, 3) RGB, by what they are for: those that were asked for.
    """

    face: Face
    quality: Quality
    crops: Mapping[str, NDArray[np.uint8]]


@dataclass(frozen=True)
class Look:
    """Result of one image: its faces, largest first, or the error that kept them.

    truncated: there are more faces, beyond the engine's max_faces.
    """

    width: int | None = None
    height: int | None = None
    faces: list[SeenFace] = field(default_factory=list)
    error: ImageError | FaceError | None = None
    truncated: bool = False


async def look(
    engine: Engine,
    image: Image,
    stages: Stages,
    crops: Mapping[str, Canvas],
    *,
    min_face_px: int = MIN_FACE_PX,
    limit: int | None = None,
) -> Look:
    """The faces of an image with these crops of each, the largest `limit` of them, and never more
    than the engine's max_faces."""
    if isinstance(image, ImageError):
        seen = Look(error=image)
    else:
        seen = await asyncio.get_running_loop().run_in_executor(
            engine.photographs, _look_at, engine, image, stages, crops, min_face_px, limit
        )
    stages.saw(None if seen.error else [face.quality.score for face in seen.faces])
    return seen


def _look_at(
    engine: Engine,
    data: bytes,
    stages: Stages,
    crops: Mapping[str, Canvas],
    min_face_px: int,
    limit: int | None,
) -> Look:
    try:
        with stages.measure("decode"):
            photograph = read_photograph(
                data, max_bytes=engine.max_image_bytes, max_pixels=engine.max_pixels
            )
    except ImageError as error:
        return Look(error=without_frames(error))
    with out_of_memory_told():
        with stages.measure("detect"):
            found = engine.detect(photograph, min_face_px)[:limit]
        faces = found[: engine.max_faces]
        with stages.measure("align"):
            seen = [_seen(photograph, face, crops) for face in faces]
    return Look(photograph.width, photograph.height, seen, truncated=len(found) > len(faces))


def is_light_image(engine: Engine, image: bytes, *_: object) -> bool:
    """True if an image is seen so quickly that it is not to wait for large ones: by what its file
    declares."""
    pixels = declared_pixels(image)
    return pixels is not None and pixels <= LIGHT_PIXELS


def _seen(photograph: Photograph, face: Face, crops: Mapping[str, Canvas]) -> SeenFace:
    """The face with these crops; that by which its quality is measured is kept if among them."""

    def crop(canvas: Canvas) -> NDArray[np.uint8]:
        aligned: NDArray[np.uint8] = align_crops(photograph, [face.landmarks_52], canvas)[0]
        return aligned

    upright = crop(IDENTITY_CANVAS)
    kept = {
        purpose: upright if canvas is IDENTITY_CANVAS else crop(canvas)
        for purpose, canvas in crops.items()
    }
    return SeenFace(face, assess_face(photograph, face, upright), kept)


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


async def side_by_side(
    works: Sequence[Coroutine[Any, Any, _Result]],
) -> list[_Result]:
    """The results in order; the first failure ends the others."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        while tasks:  # and an error's traceback, which holds this frame, holds none of them
            tasks.pop().cancel()
