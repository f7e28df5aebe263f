"""POST /identify: who is this?"""

from typing import Any, Final

from fastapi import APIRouter, Request, Response
from pydantic import Field

from service import recognition
from service.api import schemas
from service.api.answers import candidates_of, face_of, identity_of, images_of, threshold_of
from service.api.calls import answered
from service.api.fields import POPULATION_NAME, Fields, one_of
from service.api.openapi import IMAGE_CALL_PROBLEMS, refuses, takes
from service.api.uploads import Call, Form
from service.enrollment_warnings import TARGET_FPIR
from service.gallery.contract import DEFAULT_GALLERY, LARGEST_TOP_K
from service.look import Engine
from service.observe.stages import Stages
from service.recognition import Asked, Identified

router = APIRouter(tags=["images"])


class IdentifyFields(Fields):
    """Where to look, and how sure to be; at most one of threshold and target_fpir."""

    gallery: str = DEFAULT_GALLERY
    top_k: int = Field(5, ge=1, le=LARGEST_TOP_K, description="candidates a face, one a person")
    threshold: float | None = Field(
        None, ge=-1, le=1, description="the least similarity of a match"
    )
    target_fpir: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="how often a stranger may match anyone in the gallery; "
        f"{TARGET_FPIR} where neither is given",
    )
    population: str | None = Field(
        None,
        pattern=POPULATION_NAME,
        description="the strangers whose false match rate is meant: `calibration`, `worst` or one "
        "of those of the calibration; the gallery's, else MIEN_POPULATION, where none is given",
    )

    def asked(self) -> Asked:
        """How to tell yes from no."""
        name, value = one_of(self, "threshold", "target_fpir") or ("target_fpir", TARGET_FPIR)
        return Asked("threshold" if name == "threshold" else "target_fpir", value, self.population)


FORM: Final = Form(IdentifyFields)


@router.post(
    "/identify",
    response_model=schemas.IdentifyAnswer,
    responses=refuses(*IMAGE_CALL_PROBLEMS, 404, 409),
    openapi_extra=takes(FORM),
)
async def identify(request: Request) -> Response:
    """The people of a gallery most like each face of each image, and a decision about the best."""
    return await answered(request, FORM, _identify)


async def _identify(engine: Engine, call: Call[IdentifyFields], stages: Stages) -> dict[str, Any]:
    fields = call.fields
    found = await recognition.identify(
        engine,
        call.images,
        stages,
        gallery=fields.gallery,
        top_k=fields.top_k,
        asked=fields.asked(),
    )
    return {
        "images": images_of(found.looks, lambda i: _faces(found, i)),
        "gallery": fields.gallery,
        "model": engine.model,
        "space": engine.space,
        "threshold": threshold_of(found.threshold),
        **candidates_of(found.top_k, fields.top_k),
    }


def _faces(found: Identified, image: int) -> list[dict[str, Any]]:
    return [
        {**face_of(seen), **identity_of(identity)}
        for seen, identity in zip(found.looks[image].faces, found.identities[image], strict=True)
    ]
