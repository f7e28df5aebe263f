"""/galleries/{gallery}/persons and their faces. Faces come in by POST /enroll alone."""

import asyncio
import dataclasses
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from pydantic import Field

from service.api import schemas
from service.api.answers import page_of, person_face_of, person_of
from service.api.calls import engine_of, json_response, service_of
from service.api.fields import Fields
from service.api.galleries import PageFields, nothing_asked, page_asked
from service.api.openapi import refuses, takes, takes_query
from service.api.paths import FaceId, GalleryName, PersonId
from service.api.privacy import CONSENT, ConsentFields, erase
from service.api.uploads import Form, read_call
from service.api.visit import note
from service.errors import FieldInvalid, FieldMissing
from service.gallery.contract import KEEP

router = APIRouter(prefix="/galleries/{gallery}/persons", tags=["persons"])
_METADATA: Final = "a JSON object of at most 16384 bytes"


class NewPerson(Fields):
    """A person to be, without a face yet."""

    id: str | None = Field(
        None, min_length=1, max_length=128, description="one is made where none is given"
    )
    name: str | None = Field(None, min_length=1, max_length=128)
    metadata: dict[str, Any] | None = Field(None, description=_METADATA)
    consent: ConsentFields | None = Field(None, description=CONSENT)


class PersonChange(Fields):
    """What of a person is replaced; a name or consent that is null is taken away."""

    name: str | None = Field(None, min_length=1, max_length=128)
    metadata: dict[str, Any] = Field(default_factory=dict, description=_METADATA)
    consent: ConsentFields | None = Field(None, description=CONSENT)


NEW: Final = Form(NewPerson, images=())
CHANGE: Final = Form(PersonChange, images=())


@router.post(
    "",
    status_code=201,
    response_model=schemas.Person,
    responses=refuses(400, 404, 408, 409, 413, 415, 422, 503, 507),
    openapi_extra=takes(NEW),
)
async def create_person(request: Request, gallery: GalleryName) -> Response:
    """The new person, without a face."""
    engine = engine_of(request)
    fields = (await read_call(request, NEW, service_of(request).limits)).fields
    try:
        made = await engine.writers.run(
            engine.galleries.create_person,
            gallery,
            person_id=fields.id,
            name=fields.name,
            metadata=fields.metadata,
            consent=fields.consent,
        )
    except FieldInvalid as error:
        renamed = "id" if error.field == "person_id" else error.field
        raise dataclasses.replace(error, field=renamed) from error
    note(request, person_id=made.id)
    return await json_response(person_of(made), 201)


@router.get(
    "",
    response_model=schemas.Page[schemas.Person],
    responses=refuses(400, 404, 422, 503),
    openapi_extra=takes_query(PageFields),
)
async def list_persons(request: Request, gallery: GalleryName) -> Response:
    """A page of the gallery's persons."""
    galleries, asked = engine_of(request).galleries, page_asked(request)
    page = await asyncio.to_thread(
        galleries.list_persons, gallery, cursor=asked.cursor, limit=asked.limit
    )
    return await json_response(page_of(page, person_of))


@router.get("/{person_id}", response_model=schemas.Person, responses=refuses(400, 404, 422, 503))
async def get_person(request: Request, gallery: GalleryName, person_id: PersonId) -> Response:
    """The person."""
    nothing_asked(request)
    found = await asyncio.to_thread(engine_of(request).galleries.get_person, gallery, person_id)
    return await json_response(person_of(found))


@router.patch(
    "/{person_id}",
    response_model=schemas.Person,
    responses=refuses(400, 404, 408, 413, 415, 422, 503, 507),
    openapi_extra=takes(CHANGE),
)
async def change_person(request: Request, gallery: GalleryName, person_id: PersonId) -> Response:
    """The person with name, metadata and consent replaced where given.

    Who withdraws their consent is erased by DELETE: in a gallery that requires it, nobody with a
    face can be without.
    """
    engine = engine_of(request)
    fields = (await read_call(request, CHANGE, service_of(request).limits)).fields
    if not fields.model_fields_set:  # it would count as a change, and lengthen retention
        raise FieldMissing("name, metadata or consent")
    changed = await engine.writers.run(
        engine.galleries.update_person,
        gallery,
        person_id,
        name=fields.name if "name" in fields.model_fields_set else KEEP,
        metadata=fields.metadata if "metadata" in fields.model_fields_set else KEEP,
        consent=fields.consent if "consent" in fields.model_fields_set else KEEP,
    )
    return await json_response(person_of(changed))


@router.delete(
    "/{person_id}",
    response_model=schemas.Receipt,
    responses=refuses(400, 404, 422, 503, 507),
)
async def delete_person(request: Request, gallery: GalleryName, person_id: PersonId) -> Response:
    """The receipt: the person is erased with all their faces, on disk and in every later answer."""
    nothing_asked(request)
    writers = engine_of(request).writers
    return await json_response(await writers.run(erase, request, gallery, person_id))


@router.get(
    "/{person_id}/faces",
    response_model=schemas.Page[schemas.PersonFace],
    responses=refuses(400, 404, 422, 503),
    openapi_extra=takes_query(PageFields),
)
async def list_faces(request: Request, gallery: GalleryName, person_id: PersonId) -> Response:
    """A page of the person's faces."""
    galleries, asked = engine_of(request).galleries, page_asked(request)
    page = await asyncio.to_thread(
        galleries.list_faces, gallery, person_id, cursor=asked.cursor, limit=asked.limit
    )
    return await json_response(page_of(page, person_face_of))


@router.get(
    "/{person_id}/faces/{face_id}",
    response_model=schemas.PersonFace,
    responses=refuses(400, 404, 422, 503),
)
async def get_face(
    request: Request, gallery: GalleryName, person_id: PersonId, face_id: FaceId
) -> Response:
    """The face."""
    nothing_asked(request)
    galleries = engine_of(request).galleries
    found = await asyncio.to_thread(galleries.get_face, gallery, person_id, face_id)
    return await json_response(person_face_of(found))


@router.delete(
    "/{person_id}/faces/{face_id}",
    status_code=204,
    response_class=Response,
    responses=refuses(400, 404, 422, 503, 507),
)
async def delete_face(
    request: Request, gallery: GalleryName, person_id: PersonId, face_id: FaceId
) -> Response:
    """Erases the face; the person stays, if need be without a face."""
    nothing_asked(request)
    engine = engine_of(request)
    await engine.writers.run(engine.galleries.delete_face, gallery, person_id, face_id)
    return Response(status_code=204)
