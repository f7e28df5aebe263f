"""A person's rights: all that is kept of them, and a receipt when they are erased."""

import asyncio
import dataclasses
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Request, Response
from pydantic import WithJsonSchema

from service.api import schemas
from service.api.answers import embedding_of, gallery_of, person_face_of, person_of
from service.api.calls import engine_of, json_response, record_of, service_of
from service.api.fields import NoFields, query_of
from service.api.openapi import refuses
from service.api.paths import GalleryName, PersonId
from service.api.visit import visit_of
from service.errors import AuditUnavailable, ErasureIncomplete, ReceiptUnknown
from service.gallery.contract import BASES, Erasure, Export
from service.guard.gate import ANYONE
from service.guard.receipts import ERASED
from service.observe.logs import log

router = APIRouter(prefix="/galleries/{gallery}", tags=["privacy"])
CONSENT: Final = "what allows to keep the person's face: basis, time (RFC 3339) and reference"
_SCHEMA: Final = {
    "type": "object",
    "properties": {
        "basis": {"type": "string", "enum": list(BASES)},
        "time": {"type": "string", "format": "date-time"},
        "reference": {"type": ["string", "null"], "minLength": 1, "maxLength": 512},
    },
    "required": ["basis", "time"],
    "additionalProperties": False,
}
ConsentFields = Annotated[dict[str, Any], WithJsonSchema(_SCHEMA)]


@router.get(
    "/persons/{person_id}/export",
    response_model=schemas.Export,
    responses=refuses(400, 404, 422, 503),
)
async def export_person(request: Request, gallery: GalleryName, person_id: PersonId) -> Response:
    """All that is kept of the person (GDPR, Art. 15 and 20): record, consent, faces with their
    embeddings, and where the audit log names them."""
    query_of(request, NoFields)
    engine, receipts = engine_of(request), service_of(request).receipts
    found = await asyncio.to_thread(engine.galleries.export_person, gallery, person_id)
    entries = await asyncio.to_thread(receipts.of_person, gallery, person_id)
    return await json_response(_export_of(found, entries, engine.model, engine.space))


@router.get(
    "/receipts/{receipt}",
    response_model=schemas.Receipt,
    responses=refuses(400, 404, 422, 503),
)
async def get_receipt(
    request: Request,
    gallery: GalleryName,
    receipt: Annotated[str, Path(description="a receipt's id")],
) -> Response:
    """The receipt of an erasure, as it stands in the audit log; also of a gallery that is gone."""
    query_of(request, NoFields)
    found = await asyncio.to_thread(service_of(request).receipts.find, gallery, receipt)
    if found is None:
        raise ReceiptUnknown(gallery, receipt[:200])
    return await json_response(found)


def erase(request: Request, gallery: str, person_id: str) -> dict[str, Any]:
    """The receipt of the person's erasure. Blocks. Raises ErasureIncomplete with its id."""
    try:
        erasure = engine_of(request).galleries.delete_person(gallery, person_id)
    except ErasureIncomplete as error:
        if error.erasure is None:
            raise
        told = _receipt_of(request, error.erasure)
        raise dataclasses.replace(error, receipt=told["receipt"]) from error
    return _receipt_of(request, erasure)


def _receipt_of(request: Request, erasure: Erasure) -> dict[str, Any]:
    """The receipt; `audit` is null where the log could not be written: the person is erased."""
    receipts, visit = service_of(request).receipts, visit_of(request)
    told = receipts.draft(**vars(erasure))
    request_id = record_of(request).request_id
    try:
        return receipts.record(ANYONE if visit is None else visit.actor, ERASED, told)
    except AuditUnavailable as error:
        log.error("a receipt was not recorded", request_id=request_id, reason=error.reason)
        return {**told, "audit": None}


def _export_of(
    found: Export, entries: list[dict[str, Any]], model: str, space: str
) -> dict[str, Any]:
    kept = found.gallery.space
    return {
        "gallery": gallery_of(found.gallery),
        "person": person_of(found.person),
        "faces": [
            {**person_face_of(face), "embedding": embedding_of(found.embeddings[face.id])}
            for face in found.faces
        ],
        "space": kept,
        "model": model if kept == space else None,
        "audit": entries,
    }
