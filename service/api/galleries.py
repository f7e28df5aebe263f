"""/galleries: sets of people that are searched together."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from pydantic import Field

from service.api import schemas
from service.api.answers import gallery_of, page_of
from service.api.calls import engine_of, json_response, service_of
from service.api.fields import Fields, NoFields, query_of, read_fields
from service.api.openapi import refuses, takes, takes_query
from service.api.paths import GalleryName
from service.api.problems import shown
from service.api.uploads import Form, read_call
from service.api.visit import admit_gallery, galleries_seen
from service.decision import seen_by
from service.errors import FieldInvalid, FieldMissing, GalleryUnknown
from service.gallery.contract import (
    KEEP,
    LARGEST_PAGE,
    LONGEST_RETENTION_DAYS,
    Galleries,
    GalleryRecord,
    Page,
)
from service.look import Engine

router = APIRouter(tags=["galleries"])
_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
_RETENTION: Final = (
    "for how many days after their last enrolment or change a person is kept; null: until erased"
)
_REQUIRES: Final = "whether nobody is enrolled without a record of consent"
_CALIBRATION: Final = "the user's own calibration that decides; null: the model's"
_POPULATION: Final = (
    "the strangers whose false match rate decides: `calibration`, `worst` or one of those of the "
    "calibration; null: as MIEN_POPULATION says"
)


class NewGallery(Fields):
    """A gallery to be."""

    name: str = Field(pattern=_NAME)
    calibration: str | None = Field(None, pattern=_NAME, description=_CALIBRATION)
    population: str | None = Field(None, pattern=_NAME, description=_POPULATION)
    metadata: dict[str, Any] | None = Field(
        None, description="a JSON object of at most 16384 bytes"
    )
    retention_days: int | None = Field(
        None, ge=1, le=LONGEST_RETENTION_DAYS, description=_RETENTION
    )
    requires_consent: bool = Field(False, description=_REQUIRES)


class GalleryChange(Fields):
    """What of a gallery is replaced; a calibration that is null makes way for the model's own, a
    retention that is null keeps everybody until they are erased."""

    calibration: str | None = Field(None, pattern=_NAME, description=_CALIBRATION)
    population: str | None = Field(None, pattern=_NAME, description=_POPULATION)
    metadata: dict[str, Any] = Field(
        default_factory=dict, description="a JSON object of at most 16384 bytes"
    )
    retention_days: int | None = Field(
        None, ge=1, le=LONGEST_RETENTION_DAYS, description=_RETENTION
    )
    requires_consent: bool = Field(default_factory=bool, description=_REQUIRES)


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
    responses=refuses(400, 404, 408, 409, 413, 415, 422, 503, 507),
    openapi_extra=takes(NEW),
)
async def create_gallery(request: Request) -> Response:
    """The new gallery, empty; its first face will pin it to the embedding space of its model."""
    engine = engine_of(request)
    fields = (await read_call(request, NEW, service_of(request).limits)).fields
    admit_gallery(request, fields.name)
    made = await engine.writers.run(_create, engine, fields)
    return await json_response(gallery_of(made), 201)


@router.get(
    "/galleries",
    response_model=schemas.Page[schemas.Gallery],
    responses=refuses(400, 422, 503),
    openapi_extra=takes_query(PageFields),
)
async def list_galleries(request: Request) -> Response:
    """A page of all galleries; a key for single ones has all of its own in one."""
    galleries, asked = engine_of(request).galleries, page_asked(request)
    if (seen := galleries_seen(request)) is not None:
        page = await asyncio.to_thread(_page_of_own, galleries, seen, asked)
        return await json_response(page_of(page, gallery_of))
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
    responses=refuses(400, 404, 408, 409, 413, 415, 422, 503, 507),
    openapi_extra=takes(CHANGE),
)
async def change_gallery(request: Request, gallery: GalleryName) -> Response:
    """The gallery with what is given replaced."""
    engine = engine_of(request)
    fields = (await read_call(request, CHANGE, service_of(request).limits)).fields
    if not fields.model_fields_set:
        raise FieldMissing("calibration, population, metadata, retention_days or requires_consent")
    changed = await engine.writers.run(_change, engine, gallery, fields)
    return await json_response(gallery_of(changed))


@router.delete(
    "/galleries/{gallery}",
    status_code=204,
    response_class=Response,
    responses=refuses(400, 404, 422, 503, 507),
)
async def delete_gallery(request: Request, gallery: GalleryName) -> Response:
    """Erases the gallery and all in it; `default` is there again at once, empty."""
    nothing_asked(request)
    engine = engine_of(request)
    await engine.writers.run(engine.galleries.delete_gallery, gallery)
    return Response(status_code=204)


def _page_of_own(store: Galleries, names: Sequence[str], asked: PageFields) -> Page[GalleryRecord]:
    """Those of the galleries that are there. Raises FieldInvalid for a cursor: no page has one."""
    if asked.cursor is not None:
        raise FieldInvalid("cursor", shown(asked.cursor), "left out: the first page has all")
    found = []
    for name in names:
        with contextlib.suppress(GalleryUnknown):
            found.append(store.get_gallery(name))
    return Page(found, None)


def _create(engine: Engine, fields: NewGallery) -> GalleryRecord:
    """The new gallery. Raises CalibrationUnknown, CalibrationUnfit, PopulationUnknown: nothing is
    made then."""
    _require_decidable(engine, fields.calibration, fields.population, engine.space)
    return engine.galleries.create_gallery(
        fields.name,
        calibration=fields.calibration,
        population=fields.population,
        metadata=fields.metadata,
        retention_days=fields.retention_days,
        requires_consent=fields.requires_consent,
    )


def _change(engine: Engine, gallery: str, fields: GalleryChange) -> GalleryRecord:
    """The changed gallery. Raises CalibrationUnknown, CalibrationUnfit, PopulationUnknown: nothing
    is changed then."""
    given = fields.model_fields_set
    if given & {"calibration", "population"}:
        now = engine.galleries.get_gallery(gallery)
        calibration = fields.calibration if "calibration" in given else now.calibration
        population = fields.population if "population" in given else now.population
        if fields.calibration is not None or population is not None:
            _require_decidable(engine, calibration, population, now.space or engine.space)
    return engine.galleries.update_gallery(
        gallery,
        calibration=fields.calibration if "calibration" in given else KEEP,
        population=fields.population if "population" in given else KEEP,
        metadata=fields.metadata if "metadata" in given else KEEP,
        retention_days=fields.retention_days if "retention_days" in given else KEEP,
        requires_consent=fields.requires_consent if "requires_consent" in given else KEEP,
    )


def _require_decidable(
    engine: Engine, calibration: str | None, population: str | None, space: str
) -> None:
    """Raises CalibrationUnknown, CalibrationUnfit, PopulationUnknown for what could decide nothing
    about embeddings of the space."""
    decides = engine.calibration
    if calibration is not None:
        decides = engine.calibrations.get(calibration).fit(space)
    if population is not None:
        seen_by(decides, population)
