"""/healthz, /readyz, /models, /problems: how the service is and what it serves."""

import asyncio
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from service.api import schemas
from service.api.calls import engine_of, json_response, service_of
from service.api.openapi import refuses
from service.api.problems import OF_SLUG, PROBLEM_UNKNOWN, kind_response
from service.errors import ModelUnknown, NotReady
from service.inference.artefact import Artefact

router = APIRouter(tags=["house"])
_HIDDEN: Final = ("golden", "graphs", "calibration")


@router.get("/healthz", response_model=schemas.State)
async def healthz() -> Response:
    """200 while the process answers."""
    return await json_response({"status": "ok"})


@router.get("/readyz", response_model=schemas.State, responses=refuses(503))
async def readyz(request: Request) -> Response:
    """200 when calls can be answered: models warm, store usable; 503 with the reasons else."""
    reasons = await asyncio.to_thread(engine_of(request).galleries.check)
    if reasons:
        raise NotReady(reasons)
    return await json_response({"status": "ready"})


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


@router.get("/models/{name}/calibration", responses=refuses(404))
async def get_calibration(request: Request, name: str) -> dict[str, Any]:
    """Error rates by similarity with their intervals, as measured; {} where a network has none."""
    calibration: dict[str, Any] = _named(request, name).manifest.get("calibration", {})
    return calibration


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


def _named(request: Request, name: str) -> Artefact:
    artefacts = {artefact.name: artefact for artefact in service_of(request).artefacts}
    if name not in artefacts:
        raise ModelUnknown(name, sorted(artefacts))
    return artefacts[name]


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
