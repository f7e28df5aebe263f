"""POST /embeddings: faces as points of an embedding space."""

from typing import Any, Final

from fastapi import APIRouter, Request, Response

from service import recognition
from service.api import schemas
from service.api.answers import embedding_of, face_of, images_of
from service.api.calls import answered
from service.api.fields import NoFields
from service.api.openapi import IMAGE_CALL_PROBLEMS, refuses, takes
from service.api.uploads import Call, Form
from service.look import Engine
from service.observe.stages import Stages
from service.recognition import Embedded

router = APIRouter(tags=["images"])


FORM: Final = Form(NoFields)


@router.post(
    "/embeddings",
    response_model=schemas.EmbeddingsAnswer,
    responses=refuses(*IMAGE_CALL_PROBLEMS),
    openapi_extra=takes(FORM),
)
async def embeddings(request: Request) -> Response:
    """The faces of each image with their embeddings: 512 numbers, of unit length."""
    return await answered(request, FORM, _embeddings)


async def _embeddings(engine: Engine, call: Call[NoFields], stages: Stages) -> dict[str, Any]:
    embedded = await recognition.embed(engine, call.images, stages)
    looks = [one.look for one in embedded]
    return {
        "images": images_of(looks, lambda i: _faces(embedded[i], engine.space)),
        "model": engine.model,
        "space": engine.space,
    }


def _faces(embedded: Embedded, space: str) -> list[schemas.EmbeddedFace]:
    return [
        {**face_of(seen), "embedding": embedding_of(embedding), "space": space}
        for seen, embedding in zip(embedded.look.faces, embedded.embeddings_ND, strict=True)
    ]
