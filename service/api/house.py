"""/healthz, /readyz, /metrics, /models, /problems: how the service is and what it serves."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from service.api import schemas
from service.api.answers import own_calibration_of, populations_of, thresholds_of
from service.api.calls import Service, engine_of, json_bytes, json_response, service_of
from service.api.openapi import refuses
from service.api.problems import OF_SLUG, PROBLEM_UNKNOWN, kind_response
from service.api.visit import galleries_seen
from service.decision import operating_points, quantiles
from service.errors import CalibrationError, MienError, ModelUnknown, NotReady
from service.gallery.contract import LARGEST_PAGE, GalleryRecord
from service.inference.artefact import Artefact
from service.look import Engine
from service.observe.exposition import House, ModelFacts, largest

router = APIRouter(tags=["house"])
_HIDDEN: Final = ("golden", "graphs", "calibration")


@router.get("/healthz", response_model=schemas.State)
async def healthz() -> Response:
    """200 while the process answers."""
    return _state("ok")


@router.get("/readyz", response_model=schemas.State, responses=refuses(503))
async def readyz(request: Request) -> Response:
    """200 when every call can be answered: models warm and as they are on disk, the store readable
    and writable, the service not draining; 503 with the reasons else.

    `degraded` says which of several worker processes cannot be started, and why: calls are answered
    by the others.
    """
    engine_of(request)
    service = service_of(request)
    if reasons := await service.readiness.now():
        raise NotReady(reasons)
    return _state("ready", **({"degraded": service.degraded} if service.degraded else {}))


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}, "application/openmetrics-text": {}}}},
)
async def metrics(request: Request) -> Response:
    """The service's figures, in Prometheus's format or, where it is accepted, OpenMetrics'.

    docs/metrics.md lists them. Whichever worker process answers, they are those of all.
    """
    service, accept = service_of(request), request.headers.get("Accept", "")
    if service.engine is not None:
        await service.readiness.now()
    house = await asyncio.to_thread(_standing, service)
    text, kind = await asyncio.to_thread(service.exposition.text, accept, house)
    return Response(text, headers={"Content-Type": kind})


@router.get("/models", response_model=schemas.Models)
async def list_models(request: Request) -> Response:
    """The networks that are served, with the plain facts of their manifests."""
    items = [_model(artefact, _facts(artefact)) for artefact in service_of(request).artefacts]
    return await json_response({"items": items})


@router.get("/models/{name}", response_model=schemas.Model, responses=refuses(404))
async def get_model(request: Request, name: str) -> Response:
    """The network of that name, as its manifest says; golden outputs and calibration left out."""
    artefact = _named(request, name)
    manifest = {key: value for key, value in artefact.manifest.items() if key not in _HIDDEN}
    return await json_response(_model(artefact, manifest))


@router.get(
    "/models/{name}/calibration",
    response_model=schemas.Calibration,
    responses=refuses(404, 503),
)
async def get_calibration(request: Request, name: str) -> Response:
    """What decides: the model's own calibration, which is in force wherever a gallery is bound to
    no other, and the user's of its embedding space with the galleries bound to each.

    Error rates by similarity and thresholds by error rate, with their intervals, as measured, of
    the calibration's people and of other populations side by side; {} where a network has none.
    """
    artefact = _named(request, name)
    block = artefact.manifest.get("calibration", {})
    engine = engine_of(request)
    if artefact.name != engine.model:
        return await json_response(block)
    own = await asyncio.to_thread(_own_calibrations, engine, galleries_seen(request))
    return await json_response(
        {
            **block,
            "thresholds": thresholds_of(engine.calibration),
            "populations": populations_of(engine.calibration, block),
            "calibrations": own,
        }
    )


@router.get("/problems/{slug}", response_model=schemas.ProblemKind, responses=refuses(404))
async def get_problem(request: Request, slug: str) -> Response:
    """What a kind of problem means and what to do about it."""
    kind = OF_SLUG.get(slug)
    if kind is None:
        return kind_response(PROBLEM_UNKNOWN, f"there is no problem {slug[:100]!r}", request)
    return await json_response(
        {
            "type": f"/problems/{kind.slug}",
            "title": kind.title,
            "status": kind.status,
            "advice": kind.advice,
        }
    )


def _state(status: str, **more: Any) -> Response:
    """An answer that needs no thread: those that there are may all be waiting for something."""
    return Response(json_bytes({"status": status, **more}), media_type="application/json")


def _named(request: Request, name: str) -> Artefact:
    artefacts = {artefact.name: artefact for artefact in service_of(request).artefacts}
    if name not in artefacts:
        raise ModelUnknown(name, sorted(artefacts))
    return artefacts[name]


def _own_calibrations(engine: Engine, seen: Sequence[str] | None) -> list[schemas.OwnCalibration]:
    """The user's calibrations that are of the engine's space, or that a gallery of it is bound to,
    damaged and lost ones with their problem. seen: the galleries that are told of, None: all."""
    bound = _bound_galleries(engine, seen)
    answers = []
    for name in sorted({*engine.calibrations.names(), *bound}):
        try:
            kept = engine.calibrations.get(name)
            if name in bound or kept.space == engine.space:
                kept.fit(engine.space)
                answers.append(own_calibration_of(name, kept, bound.get(name, [])))
        except CalibrationError as error:
            answers.append(own_calibration_of(name, error, bound.get(name, [])))
    return answers


def _bound_galleries(engine: Engine, seen: Sequence[str] | None) -> dict[str, list[str]]:
    """The galleries of the engine's space, or of none yet, by the calibration they are bound to."""
    bound: dict[str, list[str]] = {}
    for gallery in _galleries(engine):
        if seen is not None and gallery.name not in seen:
            continue
        if gallery.calibration is not None and gallery.space in (None, engine.space):
            bound.setdefault(gallery.calibration, []).append(gallery.name)
    return bound


def _galleries(engine: Engine) -> Iterator[GalleryRecord]:
    """Every gallery."""
    cursor = None
    while True:
        page = engine.galleries.list_galleries(cursor=cursor, limit=LARGEST_PAGE)
        yield from page.items
        cursor = page.next_cursor
        if cursor is None:
            return


def _standing(service: Service) -> House:
    """How things stand, for /metrics; a store that cannot be asked is /readyz's to tell."""
    models = [
        ModelFacts(model["name"], model["space"] or "", model["provider"], model["threads"])
        for model in (_model(artefact, {}) for artefact in service.artefacts)
    ]
    engine = service.engine
    if engine is None:
        return House(models)
    house = House(
        models,
        ready=not (service.draining or service.readiness.reasons),
        quantiles=quantiles(engine.calibration),
        thresholds={
            point.target_fmr: point.similarity for point in operating_points(engine.calibration)
        },
    )
    try:
        galleries = list(_galleries(engine))
    except MienError:
        return house
    faces = largest((gallery.name, gallery.faces) for gallery in galleries)
    revision = sum(gallery.revision for gallery in galleries)
    return replace(house, galleries=faces, revision=revision)


def _facts(artefact: Artefact) -> dict[str, Any]:
    manifest = artefact.manifest
    return {key: value for key, value in manifest.items() if not isinstance(value, dict | list)}


def _model(artefact: Artefact, manifest: dict[str, Any]) -> schemas.Model:
    session = next(iter(artefact.graphs.values()))
    return {
        "name": artefact.name,
        "task": artefact.task,
        "space": artefact.manifest.get("space"),
        "provider": session.provider,
        "threads": session.threads,
        "manifest": manifest,
    }
