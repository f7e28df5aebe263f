"""POST /enroll: this is who they are."""

import hashlib
import json
from typing import Any, Final, Literal

from fastapi import APIRouter, Request, Response
from pydantic import Field

from service import recognition
from service.api import schemas
from service.api.answers import enrolled_person_of, face_of, warning_of
from service.api.calls import closed, engine_of, in_line, in_time, json_bytes, read_in_line
from service.api.fields import Fields, one_of
from service.api.openapi import IMAGE_CALL_PROBLEMS, refuses, takes
from service.api.privacy import CONSENT, ConsentFields
from service.api.problems import problem_of
from service.api.uploads import Call, Form, fingerprint_parts
from service.api.visit import may, note
from service.errors import FieldInvalid
from service.gallery.contract import DEFAULT_GALLERY, Enrolment, Idempotency
from service.look import Engine
from service.observe.stages import Stages
from service.recognition import Enrolled, EnrolOrder

IDEMPOTENCY_KEY: Final = "Idempotency-Key"
REPLAY: Final = "Idempotent-Replay"
router = APIRouter(tags=["images"])


class EnrollFields(Fields):
    """Whom to enrol, and which faces will do."""

    gallery: str = DEFAULT_GALLERY
    person_id: str | None = Field(
        None, min_length=1, max_length=128, description="one is made where none is given"
    )
    name: str | None = Field(None, min_length=1, max_length=128)
    name_if_new: str | None = Field(
        None,
        min_length=1,
        max_length=128,
        description="the name of a person who is made; who is there keeps theirs",
    )
    metadata: dict[str, Any] | None = Field(
        None, description="a JSON object of at most 16384 bytes"
    )
    consent: ConsentFields | None = Field(None, description=CONSENT)
    face: Literal["only", "largest"] = Field(
        "only", description="only: refuse an image with several faces"
    )
    quality: Literal["off", "standard", "strict"] = Field(
        "off", description="how good a picture of the face must be"
    )


FORM: Final = Form(EnrollFields)


@router.post(
    "/enroll",
    status_code=201,
    response_model=schemas.EnrollAnswer,
    responses=refuses(*IMAGE_CALL_PROBLEMS, 404, 409, 410, 507),
    openapi_extra=takes(FORM, header=IDEMPOTENCY_KEY),
)
async def enroll(request: Request) -> Response:
    """A face of each image is enrolled for a person, who is made if they are not there.

    201 means: on disk, and found by the next /identify. Sent again with the same Idempotency-Key it
    gives the same answer and no second face.
    """
    engine = engine_of(request)
    call = await read_in_line(request, FORM)
    with in_line(request) as stages:
        work = _enroll(engine, call, request, stages)
        body, replayed = await in_time(request, work, stages)
        note(request, replayed=replayed)
    headers = {REPLAY: "true"} if replayed else {}
    return Response(body, 201, headers, "application/json")


async def _enroll(
    engine: Engine, call: Call[EnrollFields], request: Request, stages: Stages
) -> tuple[bytes, bool]:
    fields = call.fields
    one_of(fields, "name", "name_if_new")

    def answer(enrolment: Enrolment, enrolled: Enrolled) -> bytes:
        note(request, person_id=enrolment.person.id, face_ids=list(enrolment.faces))
        return json_bytes(closed(_answer(engine, enrolment, enrolled), request, stages))

    order = EnrolOrder(
        gallery=fields.gallery,
        person_id=fields.person_id,
        name=fields.name,
        metadata=fields.metadata,
        consent=fields.consent,
        name_if_new=fields.name_if_new,
        may_identify=may(request, "recognise"),
        pick=fields.face,
        quality=fields.quality,
        idempotency=_idempotency(request, call),
    )
    return await recognition.enroll(engine, call.images, stages, order, answer)


def _answer(engine: Engine, enrolment: Enrolment, enrolled: Enrolled) -> dict[str, Any]:
    return {
        "gallery": enrolment.gallery,
        "person": enrolled_person_of(enrolment.person),
        "enrolled": [
            {
                "image": image,
                "face_id": face_id,
                "box": face_of(seen)["box"],
                "quality": face_of(seen)["quality"],
            }
            for face_id, (image, seen) in zip(enrolment.faces, enrolled.taken, strict=True)
        ],
        "refused": [
            {"image": image, "problem": problem_of(error)} for image, error in enrolled.refused
        ],
        "warnings": [warning_of(warning) for warning in enrolled.warnings],
        "model": engine.model,
        "space": engine.space,
    }


def _idempotency(request: Request, call: Call[EnrollFields]) -> Idempotency | None:
    """The key with the fingerprint of all that makes the request: its images and its fields."""
    keys = request.headers.getlist(IDEMPOTENCY_KEY)
    if not keys:
        return None
    if len(keys) > 1 or not (1 <= len(keys[0]) <= 255 and keys[0].isprintable()):
        raise FieldInvalid(IDEMPOTENCY_KEY, ", ".join(keys), "one of 1 to 255 printable characters")
    fields = call.fields.model_dump()
    if fields["name_if_new"] is None:  # a key of before there was the field is good still
        del fields["name_if_new"]
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    for image in fingerprint_parts(call.images):
        digest.update(hashlib.sha256(image).digest())
    return Idempotency(keys[0], digest.hexdigest())
