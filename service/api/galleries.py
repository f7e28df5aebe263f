"""/galleries: sets of people that are searched together."""

import asyncio
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from pydantic import Field

from service.api import schemas
from service.api.answers import gallery_of, page_of
from service.api.calls import engine_of, json_response, service_of
from service.api.fields import Fields, NoFields, query_of, read_fields
from service.api.openapi import refuses, takes, takes_query
from service.api.paths import GalleryName
from service.api.uploads import Form, read_call
from service.gallery.contract import LARGEST_PAGE

router = APIRouter(tags=["galleries"])


class NewGallery(Fields):
    """A gallery to be."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    metadata: dict[str, Any] | None = Field(
        None, description="a JSON object of at most 16384 bytes"
    )


class GalleryChange(Fields):
    """What of a gallery is replaced."""

    metadata: dict[str, Any] = Field(description="a JSON object of at most 16384 bytes")


class PageFields(Fields):
    """Which page."""

    cursor: str | None = Field(None, description="`next` of the page before")
    limit: int = Field(100, ge=1, le=LARGEST_PAGE)


NEW: Final = Form(NewGallery, images=())
CHANGE: Final = Form(GalleryChange, images=())


def page_asked(request: Request) -> PageFields:
    """The page that the query asks for."""
    return read_fields(PageFields, query_of(request, PageFields))


def nothing_asked(request: Request) -> None:
    """Nothing, for a call without fields. Raises FieldUnknown."""
    query_of(request, NoFields)


@router.post(
    "/galleries",
    status_code=201,
    response_model=schemas.Gallery,
    responses=refuses(400, 408, 409, 413, 415, 422, 503, 507),
    openapi_extra=takes(NEW),
)
async def create_gallery(request: Request) -> Response:
    """The new gallery, empty; its first face will pin it to the embedding space of its model."""
    galleries = engine_of(request).galleries
    fields = (await read_call(request, NEW, service_of(request).limits)).fields
    made = await asyncio.to_thread(galleries.create_gallery, fields.name, metadata=fields.metadata)
    return await json_response(gallery_of(made), 201)


@router.get(
    "/galleries",
    response_model=schemas.Page[schemas.Gallery],
    responses=refuses(400, 422, 503),
    openapi_extra=takes_query(PageFields),
)
async def list_galleries(request: Request) -> Response:
    """A page of all galleries."""
    galleries, asked = engine_of(request).galleries, page_asked(request)
    page = await asyncio.to_thread(galleries.list_galleries, cursor=asked.cursor, limit=asked.limit)
    return await json_response(page_of(page, gallery_of))


@router.get(
    "/galleries/{gallery}",
    response_model=schemas.Gallery,
    responses=refuses(400, 404, 422, 503),
)
async def get_gallery(request: Request, gallery: GalleryName) -> Response:
    """The gallery."""
    nothing_asked(request)
    found = await asyncio.to_thread(engine_of(request).galleries.get_gallery, gallery)
    return await json_response(gallery_of(found))


@router.patch(
    "/galleries/{gallery}",
    response_model=schemas.Gallery,
    responses=refuses(400, 404, 408, 413, 415, 422, 503, 507),
    openapi_extra=takes(CHANGE),
)
async def change_gallery(request: Request, gallery: GalleryName) -> Response:
    """The gallery with its metadata replaced."""
    galleries = engine_of(request).galleries
    fields = (await read_call(request, CHANGE, service_of(request).limits)).fields
    found = await asyncio.to_thread(galleries.update_gallery, gallery, metadata=fields.metadata)
    return await json_response(gallery_of(found))


@router.delete(
    "/galleries/{gallery}",
    status_code=204,
    response_class=Response,
    responses=refuses(400, 404, 422, 503, 507),
)
async def delete_gallery(request: Request, gallery: GalleryName) -> Response:
    """Erases the gallery and all in it; `default` is there again at once, empty."""
    nothing_asked(request)
    await asyncio.to_thread(engine_of(request).galleries.delete_gallery, gallery)
    return Response(status_code=204)
