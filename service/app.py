"""The application: settings in, a service that answers calls out.

At the start the models are held to their manifests and the store is opened; what is wrong there
stops the start. Then the models run once and the galleries come into memory, and only when that is
done do /readyz and the calls say yes.
"""

import asyncio
import errno
import os
import platform
import resource
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any, Final

import numpy as np
from fastapi import FastAPI
from numpy.typing import NDArray

from service.api import (
    analyses,
    console,
    detection,
    docs,
    embeddings,
    enrolment,
    galleries,
    house,
    identification,
    persons,
    privacy,
    verification,
)
from service.api.bodies import Intake, Limits
from service.api.calls import Service
from service.api.door import Door
from service.api.envelope import Envelope, answer_errors
from service.api.openapi import describe
from service.api.pages import OwnPages
from service.api.shares import Line, Shared
from service.calibration.kept import Calibrations
from service.connections import PLACES, Places, most_connections
from service.decision import Calibration, seen_by
from service.drain import drain_on_sigterm, end_with_parent
from service.errors import (
    ArtefactError,
    BuffersFull,
    GalleryMissing,
    KeyRequired,
    MienError,
    PopulationUnknown,
    SettingsError,
    StorageUnavailable,
)
from service.gallery import FILE_NAME, has_gallery, open_gallery
from service.gallery.contract import Galleries
from service.guard.audit import FILE as AUDIT
from service.guard.audit import Audit, tells_of_galleries
from service.guard.gate import Gate, open_gate
from service.guard.keys import read_secret
from service.guard.receipts import Receipts
from service.guard.templates import TemplateKeyFile
from service.inference.artefact import CLASSIFIERS, Artefact, golden_pattern, load_artefact
from service.inference.batcher import Batcher
from service.inference.intact import Intact
from service.inference.session import Session, runtime_version
from service.look import MIN_FACE_PX, Classifier, Engine, is_light_image
from service.memory import give_memory_back
from service.observe import logs, metrics
from service.observe.exposition import Exposition
from service.observe.gpu import no_gpus, open_gpus
from service.observe.logs import Throttle, log
from service.observe.watch import open_watch
from service.observe.workers import reason_left
from service.retention import keep_swept
from service.settings import Settings, metrics_folder, read_settings
from service.turns import FairPool
from service.vision.align import EXPRESSION_CANVAS, IDENTITY_CANVAS, WIDE_CANVAS, Canvas
from service.vision.detect import Cascade, detect_faces
from service.vision.faces import Photograph
from service.writers import Writers

_RETRY_S: Final = 2.0
_STORE_PATIENCE_S: Final = 60.0
# A net under the line of calls, for memory alone (37 KiB a crop): who has a place in that line is
# not to be refused half-way.
_MOST_CROPS_IN_LINE: Final = 8192
_ROUTERS: Final = (
    detection,
    embeddings,
    enrolment,
    identification,
    verification,
    analyses,
    galleries,
    persons,
    privacy,
    house,
    docs,
    console,
)


@dataclass(frozen=True)
class Opened:
    """An engine with what it stands on: `warm_up` before it is used, `close` when it is not."""

    engine: Engine
    artefacts: tuple[Artefact, ...]
    warm_up: Callable[[], None]
    close: Callable[[], None]


def create_app(
    settings: Settings,
    *,
    open_engine: "Callable[[Settings], Opened] | None" = None,
    served: bool = False,
) -> FastAPI:
    """The application. open_engine: what opens models and store; the real thing unless given.
    served: on a port, where a browser may be pointed at it."""
    gate = require_gate(settings)
    watch = open_watch(settings.collector, version=version("mien"))
    app = FastAPI(
        title="Mien",
        version=version("mien"),
        description="Faces in, names out. Errors are application/problem+json, see /problems/SLUG.",
        lifespan=partial(_lifespan, settings, open_engine or open_everything, watch.close),
        docs_url=None,
        redoc_url=None,
        openapi_url=None,  # its own route has headers of ours
        redirect_slashes=False,
    )
    app.state.service = Service(
        limits=Limits(
            image_bytes=settings.max_image_bytes,
            body_bytes=settings.max_body_bytes,
            images=settings.max_images,
            body_timeout_s=settings.body_timeout_s,
        ),
        line=Line(settings.queue),
        exposition=Exposition(
            build={
                "version": version("mien"),
                "python": platform.python_version(),
                "onnxruntime": runtime_version(),
            },
            folder=metrics_folder(),
            gpus=open_gpus() if settings.device == "cuda" else no_gpus,
            data=settings.data,
        ),
        gate=gate,
        receipts=Receipts(gate.audit or Audit(settings.data / AUDIT)),
        call_timeout_s=settings.call_timeout_s,
    )
    app.state.intake = Intake(Shared(settings.buffered_bytes, "bytes of bodies", BuffersFull))
    for module in _ROUTERS:
        app.include_router(module.router)
    if gate.audit is not None:
        app.add_middleware(Door, gate=gate)
    if served and gate.keys is None:
        app.add_middleware(OwnPages, hosts=settings.other_hosts)
    app.add_middleware(Envelope, readers=watch.readers, recorded=watch.recorded)
    answer_errors(app)
    app.openapi = partial(_described_once, app)  # type: ignore[method-assign]
    return app


def app_from_environment() -> FastAPI:
    """The application of the environment's settings: what each worker process starts from."""
    settings = read_settings()
    logs.configure(settings.log)
    end_with_parent()
    with reason_left(metrics_folder(), os.getpid()):
        return create_app(settings, served=True)


def open_everything(settings: Settings) -> Opened:
    """The engine of the settings, not yet warm. Raises ArtefactError, SettingsError, Storage*."""
    give_memory_back()
    models = load_models(settings)
    recogniser = models["recognition"]
    cascade = Cascade(**{part: graph.run for part, graph in models["detection"].graphs.items()})
    batchers = {
        task: _batcher(artefact, settings)
        for task, artefact in models.items()
        if task != "detection"
    }
    photographs = FairPool(settings.photographs_at_once, "photograph", is_light=is_light_image)
    writers = Writers(settings.max_writes)
    store = _store_in_time(settings)
    engine = Engine(
        detect=lambda photograph, px: detect_faces(photograph, cascade, min_face_px=px),
        embed=batchers["recognition"].submit,
        classifiers={
            task: _classifier(artefact, batchers[task])
            for task, artefact in models.items()
            if task in CLASSIFIERS
        },
        galleries=store,
        calibration=_calibration(recogniser, settings.population),
        calibrations=Calibrations(settings.calibrations),
        photographs=photographs,
        writers=writers,
        model=recogniser.name,
        space=recogniser.space,
        max_image_bytes=settings.max_image_bytes,
        max_pixels=settings.max_pixels,
        population=settings.population,
        max_faces=settings.max_faces,
    )

    def close() -> None:
        photographs.shutdown(cancel_futures=True)
        writers.close()
        for batcher in batchers.values():
            batcher.close()
        store.close()

    return Opened(engine, tuple(models.values()), partial(_warm_up, engine, settings), close)


def _store_in_time(settings: Settings) -> Galleries:
    """The galleries. One of several workers waits while others have them locked, as for the
    deletion of a large gallery: to begin it anew takes longer, and is told as a failure."""
    give_up = time.monotonic() + (_STORE_PATIENCE_S if settings.workers > 1 else 0)
    while True:
        try:
            return open_store(settings)
        except StorageUnavailable as error:
            if time.monotonic() > give_up:
                raise
            log.warning("not ready yet", reason=str(error))
            time.sleep(_RETRY_S)


def open_store(settings: Settings, *, new: bool = False) -> Galleries:
    """The galleries. new: begin empty ones even where others were lost. Raises GalleryMissing,
    Storage*, TemplateKeysRefused."""
    keys = settings.template_keys
    audit = settings.data / AUDIT
    if not new and not has_gallery(settings.data) and tells_of_galleries(audit):
        raise GalleryMissing(str(settings.data / FILE_NAME), audit.name)
    return open_gallery(
        settings.data,
        search_threads=settings.threads,
        masters=None if keys is None else TemplateKeyFile(keys),
        new=new,
    )


def require_gate(settings: Settings) -> Gate:
    """The gate of the settings. Raises SettingsError where nobody could come in, or anybody."""
    gate = open_gate(
        settings.data,
        guarded=settings.guarded,
        audited=settings.audit == "on",
        secret_file=settings.secret_file,
    )
    try:
        if gate.keys is not None and settings.secret_file is not None:
            read_secret(settings.secret_file)
    except StorageUnavailable as error:
        raise SettingsError("MIEN_KEY_FILE", error.reason) from error
    try:
        gate.require_key()
    except KeyRequired as error:
        reason = (
            f"callers must show a key (MIEN_HOST={settings.host}, MIEN_KEYS={settings.keys}) and "
            f"there is none in {settings.data}: make one with `mien keys create NAME --scope "
            "SCOPE`, or name a file with one in MIEN_KEY_FILE"
        )
        raise SettingsError("MIEN_KEYS", reason) from error
    except StorageUnavailable as error:
        raise SettingsError("MIEN_KEYS", error.reason) from error
    return gate


def load_models(settings: Settings) -> dict[str, Artefact]:
    """The networks by their task; none of what is off."""
    return {task: _load_model(settings, task, name) for task, name in settings.networks.items()}


def _load_model(settings: Settings, task: str, name: str) -> Artefact:
    artefact = load_artefact(
        settings.models / name, threads=settings.threads, device=settings.device
    )
    if artefact.task != task:
        reason = f"its task is {artefact.task}, where {task} is asked for"
        raise ArtefactError(str(artefact.folder), reason)
    return artefact


def _batcher(artefact: Artefact, settings: Settings) -> Batcher:
    queue = metrics.Queue(artefact.name)
    return Batcher(
        partial(_first_output, artefact.graphs["model"]),
        max_batch=settings.batch_crops,
        max_waiting=_MOST_CROPS_IN_LINE,
        name=artefact.name,
        runners=settings.runs_at_once,
        line_is=queue.line_is,
        batch_begins=queue.batch_begins,
    )


def _classifier(artefact: Artefact, batcher: Batcher) -> Classifier:
    manifest = artefact.manifest
    classes = tuple(manifest["classes"])
    reliable = manifest.get("reliable", {})
    return Classifier(
        name=artefact.name,
        scores=batcher.submit,
        canvas=_canvas(artefact),
        classes=classes,
        reliable=frozenset(name for name in classes if reliable.get(name, True)),
        min_inter_eye_px=float(manifest["min_inter_eye_px"]),
    )


def _canvas(artefact: Artefact) -> Canvas:
    """What a classifier's crops look like: of the size that its graph takes."""
    if artefact.task == "attributes":
        return WIDE_CANVAS
    [crops] = artefact.graphs["model"].inputs.values()
    return EXPRESSION_CANVAS.scaled(crops["shape"][2])


def _calibration(recogniser: Artefact, population: str) -> Calibration:
    """The model's calibration. Raises SettingsError where it lacks the population that decides."""
    try:
        calibration = Calibration.from_manifest(recogniser.manifest["calibration"])
        seen_by(calibration, population)
    except PopulationUnknown as error:
        raise SettingsError("MIEN_POPULATION", str(error)) from error
    except (KeyError, TypeError, ValueError) as error:
        reason = f"its calibration cannot be used: {error}"
        raise ArtefactError(str(recogniser.folder), reason) from error
    return calibration


def _first_output(session: Session, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
    rows: NDArray[np.float32] = session.run(batch)[0]
    return rows


def _warm_up(engine: Engine, settings: Settings) -> None:
    """Runs what the first caller would otherwise wait for."""
    pattern = golden_pattern((1, 480, 640, 3))[0]
    engine.detect(Photograph(pattern), MIN_FACE_PX)
    networks = [(engine.embed, IDENTITY_CANVAS)]
    networks += [(one.scores, one.canvas) for one in engine.classifiers.values()]
    for run, canvas in networks:
        for count in {1, settings.batch_crops}:
            run(golden_pattern((count, canvas.height, canvas.width, 3))).result()
    engine.galleries.warm_up()


@asynccontextmanager
async def _lifespan(
    settings: Settings,
    open_engine: Callable[[Settings], Opened],
    unwatch: Callable[[], None],
    app: FastAPI,
) -> AsyncIterator[dict[str, Any]]:
    service: Service = app.state.service
    places = _places(settings)
    tell_failure = partial(_tell_failure, places, Throttle())
    asyncio.get_running_loop().set_exception_handler(tell_failure)
    with reason_left(service.exposition.folder, os.getpid()):
        opened = await asyncio.to_thread(open_engine, settings)
    service.artefacts = opened.artefacts
    service.intact = Intact(opened.artefacts).check
    drain_on_sigterm(partial(_begin_to_drain, service))
    warming = asyncio.create_task(_warm(service, opened))
    others = [
        asyncio.create_task(keep_swept(opened.engine.galleries, service.receipts)),
        asyncio.create_task(service.readiness.keep()),
    ]
    tasks = [warming, *others]
    for task in tasks:
        task.add_done_callback(_tell_end)
    try:
        if settings.workers > 1:  # a ready worker beside a cold one would make /readyz untrue
            await warming
        yield {PLACES: places}
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await asyncio.to_thread(service.readiness.close)
        await asyncio.to_thread(opened.close)
        await asyncio.to_thread(service.gate.close)
        await asyncio.to_thread(unwatch)


def _places(settings: Settings) -> Places:
    """The places for connections; read by the server, where there is one."""
    return Places(
        most=most_connections(settings.max_connections),
        head_s=settings.head_timeout_s,
        write_s=settings.write_timeout_s,
    )


def _begin_to_drain(service: Service) -> None:
    service.draining = True
    log.info("draining")


async def _warm(service: Service, opened: Opened) -> None:
    while service.engine is None:
        try:
            await asyncio.to_thread(opened.warm_up)
            service.engine = opened.engine
        except MienError as error:
            service.reasons = [str(error)]
            log.warning("not ready yet", reason=str(error))
            await asyncio.sleep(_RETRY_S)
    log.info("ready")


def _tell_end(task: asyncio.Task[None]) -> None:
    """Logs what ended a task that nobody waits for: else it would be as if it went on."""
    if not task.cancelled() and (failure := task.exception()) is not None:
        log.error("a task failed", exc_info=failure)


def _tell_failure(
    places: Places, throttle: Throttle, loop: asyncio.AbstractEventLoop, context: dict[str, Any]
) -> None:
    """Logs a failure that nobody waited for, without what asyncio would show of the task.

    Out of descriptors, asyncio fails a hundred times a second for as long as callers come: of that
    there is one line a minute.
    """
    failure = context.get("exception")
    if isinstance(failure, OSError) and failure.errno in (errno.EMFILE, errno.ENFILE):
        if (suppressed := throttle.suppressed()) is not None:
            log.error(
                "out of file descriptors",
                errno=errno.errorcode[failure.errno],
                limit=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
                connections=places.open,
                suppressed=suppressed,
            )
        return
    log.error("a task failed", exc_info=failure)


def _described_once(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        app.openapi_schema = describe(app)
    return app.openapi_schema
