"""POST /verify: are these two the same person?"""

from typing import Any, Final, Literal

from fastapi import APIRouter, Request, Response
from pydantic import Field

from service import recognition
from service.api.answers import cosine_of, face_of, threshold_of
from service.api.calls import answered
from service.api.fields import POPULATION_NAME, Fields, one_of
from service.api.openapi import IMAGE_CALL_PROBLEMS, refuses, takes
from service.api.schemas import VerifyAnswer
from service.api.uploads import Call, Form
from service.look import Engine
from service.observe.stages import Stages
from service.recognition import Asked

TARGET_FMR: Final = 0.001
router = APIRouter(tags=["images"])


class VerifyFields(Fields):
    """How sure to be, by at most one of threshold and target_fmr, and which face is meant.

    calibration: the user's own that decides in the place of the model's. population: of it.
    """

    threshold: float | None = Field(
        None, ge=-1, le=1, description="the least similarity of a match"
    )
    target_fmr: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="how often two people may be taken for one; "
        f"{TARGET_FMR} where neither is given",
    )
    calibration: str | None = Field(
        None, description="the user's own calibration that decides; the model's where none is given"
    )
    population: str | None = Field(
        None,
        pattern=POPULATION_NAME,
        description="the strangers whose false match rate is meant: `calibration`, `worst` or one "
        "of those of the calibration; MIEN_POPULATION where none is given",
    )
    face: Literal["largest", "only"] = Field(
        "largest", description="only: refuse an image with several faces"
    )

    def asked(self) -> Asked:
        """How to tell yes from no."""
        name, value = one_of(self, "threshold", "target_fmr") or ("target_fmr", TARGET_FMR)
        return Asked("threshold" if name == "threshold" else "target_fmr", value, self.population)


FORM: Final = Form(VerifyFields, images=("image_a", "image_b"))


@router.post(
    "/verify",
    response_model=VerifyAnswer,
    responses=refuses(*IMAGE_CALL_PROBLEMS, 404, 409),
    openapi_extra=takes(FORM),
)
async def verify(request: Request) -> Response:
    """How similar the faces of two images are, and whether that makes them one person's."""
    return await answered(request, FORM, _verify)


async def _verify(engine: Engine, call: Call[VerifyFields], stages: Stages) -> dict[str, Any]:
    image_a, image_b = call.images
    found = await recognition.verify(
        engine,
        (image_a, image_b),
        stages,
        pick=call.fields.face,
        asked=call.fields.asked(),
        calibration=call.fields.calibration,
    )
    return {
        "similarity": cosine_of(found.similarity),
        "decision": found.decision,
        "threshold": threshold_of(found.threshold),
        "faces": [face_of(seen) for seen in found.faces],
        "model": engine.model,
        "space": engine.space,
    }
