"""How a call is answered: the body, a place in line, the work, the answer; and when not.

`Service` is what the application holds for all calls. A call whose client has gone, or whose time
is over, is given up: it leaves every line, and what a thread is doing for it ends with its stage.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from service.api.bodies import Limits, take_over_body
from service.api.fields import F
from service.api.shares import Line
from service.api.uploads import Call, Form, read_call
from service.api.visit import caller_of, key_of
from service.drain import DRAINING
from service.errors import CallTimedOut, NotReady
from service.guard.gate import Gate
from service.guard.receipts import Receipts
from service.inference.artefact import Artefact
from service.look import Engine
from service.observe.exposition import Exposition
from service.observe.record import Record
from service.observe.stages import Stages
from service.readiness import Readiness
from service.turns import CURRENT, Turn

Result = TypeVar("Result")
Work = Callable[[Engine, Call[F], Stages], Coroutine[Any, Any, Mapping[str, Any]]]


@dataclass
class Service:
    """What the application holds. reasons: why calls cannot be answered yet; engine: then None.

    intact: says which files of models are not what was loaded. draining: no call is let in.
    readiness: what else keeps it from answering as it should, once it is warm.
    call_timeout_s: within which a call with images is answered, from the end of its body on.
    """

    limits: Limits
    line: Line
    exposition: Exposition
    gate: Gate
    receipts: Receipts
    artefacts: Sequence[Artefact] = ()
    engine: Engine | None = None
    intact: Callable[[], list[str]] = list
    draining: bool = False
    call_timeout_s: float = 60.0
    reasons: list[str] = field(default_factory=lambda: ["the models are not warm yet"])

    def __post_init__(self) -> None:
        self.readiness = Readiness(self._look)
        self.degraded: list[str] = []  # which workers cannot be started, as the last look found

    def _look(self) -> list[str]:
        """Why some calls cannot be answered as they should be, a sentence each. Blocks."""
        self.degraded = list(self.exposition.workers().degraded)
        store = [] if self.engine is None else self.engine.galleries.check()
        return list(dict.fromkeys([*store, *self.intact(), *self.gate.check()]))


def service_of(request: Request) -> Service:
    """The application's Service."""
    service: Service = request.app.state.service
    return service


def engine_of(request: Request) -> Engine:
    """The engine. Raises NotReady with the reasons why there is none."""
    service = service_of(request)
    if service.draining:
        raise NotReady([DRAINING])
    if service.engine is None:
        raise NotReady(service.reasons)
    return service.engine


def record_of(request: Request) -> Record:
    """The record of the request, for those who read it when it is over."""
    record: Record = request.state.record
    return record


def begin_stages(request: Request) -> Stages:
    """The record of the call's way, which begins now: its body has come."""
    record_of(request).stages = stages = Stages()
    return stages


@contextmanager
def in_line(request: Request) -> Iterator[Stages]:
    """A place in line and a turn for a call whose body has come. Raises QueueFull, ShareUsed."""
    turn = Turn(key_of(request))
    line = service_of(request).line
    with line.place(turn, take_over_body(request), caller_of(request)):
        before = CURRENT.set(turn)
        try:
            yield begin_stages(request)
        finally:
            CURRENT.reset(before)


async def read_in_line(request: Request, form: Form[F]) -> Call[F]:
    """The call that comes with the request. Raises a RequestError when it is not as it should be,
    QueueFull and ShareUsed where it would find no place: its body need not come then."""
    service = service_of(request)
    service.line.require_place(caller_of(request))
    return await read_call(request, form, service.limits)


async def answered(request: Request, form: Form[F], work: Work[F]) -> Response:
    """The answer to a call with images: what `work` makes of it, its times and its id."""
    engine = engine_of(request)
    call = await read_in_line(request, form)
    with in_line(request) as stages:
        body = await in_time(request, work(engine, call, stages), stages)
        return await json_response(closed(body, request, stages))


def closed(body: Mapping[str, Any], request: Request, stages: Stages) -> dict[str, Any]:
    """The body with the times and the request's id at its end."""
    times = stages.timings_ms()
    return {**body, "timings_ms": times, "request_id": record_of(request).request_id}


async def in_time(request: Request, work: Awaitable[Result], stages: Stages) -> Result:
    """The work's result; the work is given up when the client goes or the call's time is over.

    Raises ClientDisconnect, CallTimedOut. What is being stored when the time is over is waited for.
    """
    timeout_s = service_of(request).call_timeout_s
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_departure(request))
    try:
        await asyncio.wait(
            (working, leaving), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
        )
        if not working.done() and leaving.done():
            raise ClientDisconnect
        if not working.done() and stages.stop():
            raise CallTimedOut(timeout_s)
        return await working
    finally:
        stages.stop()
        working.cancel()
        leaving.cancel()
        # Its error's traceback holds this frame, and all that the call had: a circle otherwise.
        del working, leaving


async def json_response(body: Any, status: int = 200) -> Response:
    """The body as JSON, written in a thread: a crowd's embeddings take their time."""
    return Response(
        await asyncio.to_thread(json_bytes, body), status, media_type="application/json"
    )


def json_bytes(body: Any) -> bytes:
    """The body as JSON text in UTF-8."""
    return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


async def _departure(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
