"""POST /detect: the faces of images."""

from typing import Any, Final

from fastapi import APIRouter, Request, Response
from pydantic import Field

from service import recognition
from service.api.answers import face_of, images_of
from service.api.calls import answered
from service.api.fields import Fields
from service.api.openapi import IMAGE_CALL_PROBLEMS, refuses, takes
from service.api.schemas import DetectAnswer
from service.api.uploads import Call, Form
from service.look import Engine
from service.observe.stages import Stages

router = APIRouter(tags=["images"])


class DetectFields(Fields):
    """Which faces are looked for."""

    min_face: int = Field(20, ge=12, le=10_000, description="side of the smallest face, in px")
    limit: int | None = Field(None, ge=1, le=1000, description="faces an image, the largest first")


FORM: Final = Form(DetectFields)


@router.post(
    "/detect",
    response_model=DetectAnswer,
    responses=refuses(*IMAGE_CALL_PROBLEMS),
    openapi_extra=takes(FORM),
)
async def detect(request: Request) -> Response:
    """The faces of each image: box, confidence, five landmarks, quality."""
    return await answered(request, FORM, _detect)


async def _detect(engine: Engine, call: Call[DetectFields], stages: Stages) -> dict[str, Any]:
    looks = await recognition.detect(
        engine, call.images, stages, min_face_px=call.fields.min_face, limit=call.fields.limit
    )
    return {"images": images_of(looks, lambda i: [face_of(seen) for seen in looks[i].faces])}
