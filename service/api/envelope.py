"""Around every call: its id, its trace, its record, and an answer even when the code fails."""

import re
import uuid
from collections.abc import Sequence
from typing import Final

from fastapi import FastAPI, Request, Response
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.bodies import release_body
from service.api.paths import keep_slashes, origin_form, with_slashes
from service.api.problems import (
    INTERNAL,
    METHOD_UNKNOWN,
    PATH_UNKNOWN,
    REQUEST_REFUSED,
    error_response,
    kind_response,
)
from service.api.rights import methods_of
from service.errors import ConnectionsFull, MienError, OutOfMemory
from service.memory import lacks_memory
from service.observe.logs import log
from service.observe.record import UNKNOWN_ROUTE, Reader, Record, method_of
from service.observe.trace import trace_of

PROBES: Final = ("/healthz", "/readyz", "/metrics")
# In the scope's state, by the server: the limit of connections, where all but the last are in use.
CROWDED: Final = "crowded"
REQUEST_ID: Final = "X-Request-ID"
_SANE_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class Envelope:
    """Gives each request an id (the caller's, where sane) and each failure a problem with it.

    readers: who reads a request's record when it is over. recorded: whether traces that begin here
    are recorded.
    """

    def __init__(self, app: ASGIApp, *, readers: Sequence[Reader], recorded: bool) -> None:
        self.app = app
        self._readers = readers
        self._recorded = recorded

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope = origin_form(scope)
        keep_slashes(scope)
        method = scope["method"]
        if method == "HEAD":  # as GET; the server leaves the body out
            scope = {**scope, "method": "GET"}
        request = Request(scope, receive)
        record = request.state.record = _record(request, method, recorded=self._recorded)
        begun = False

        async def send_marked(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun, record.status = True, message["status"]
                headers = {REQUEST_ID: record.request_id, **record.trace.headers()}
                MutableHeaders(scope=message).update(headers)
            await send(message)

        crowded: int | None = scope.get("state", {}).get(CROWDED)
        try:
            if crowded is not None and scope["path"] not in PROBES:
                refused = error_response(ConnectionsFull(crowded), request)
                refused.headers["Connection"] = "close"
                await refused(scope, receive, send_marked)
            else:
                await self.app(scope, receive, send_marked)
        except Exception as failure:
            ids = {"request_id": record.request_id, "trace_id": record.trace.trace_id}
            log.exception("request failed", method=record.method, route=_template(scope), **ids)
            if not begun and lacks_memory(failure):
                await error_response(OutOfMemory(), request)(scope, receive, send_marked)
            elif not begun:
                detail = "something went wrong here; nothing is known to be wrong with the call"
                await kind_response(INTERNAL, detail, request)(scope, receive, send_marked)
        finally:
            release_body(request)
            if record.route == UNKNOWN_ROUTE:
                record.route = _template(scope)
            record.end()
            for read in self._readers:
                read(record)


def _record(request: Request, method: str, *, recorded: bool) -> Record:
    """The record of a request that has just come."""
    headers = request.headers
    given = headers.get(REQUEST_ID, "")
    request_id = given if _SANE_ID.fullmatch(given) else uuid.uuid4().hex
    parents, states = headers.getlist("traceparent"), headers.getlist("tracestate")
    return Record(request_id, method_of(method), trace_of(parents, states, recorded=recorded))


def _template(scope: Scope) -> str:
    """The template that the path matched, of a route with this method or another."""
    route = scope.get("route")
    if route is not None:
        return str(route.path)
    plain = {getattr(one, "path", None) for one in scope["app"].routes}  # /openapi.json
    return scope["path"] if scope["path"] in plain else UNKNOWN_ROUTE


def answer_errors(app: FastAPI) -> None:
    """Every error that reaches the application becomes a problem."""
    app.add_exception_handler(MienError, _domain_error)
    app.add_exception_handler(MemoryError, _out_of_memory)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _gone)


async def _domain_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, MienError)
    return error_response(error, request)


async def _out_of_memory(request: Request, error: Exception) -> Response:
    return error_response(OutOfMemory(), request)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind = {404: PATH_UNKNOWN, 405: METHOD_UNKNOWN}.get(error.status_code, REQUEST_REFUSED)
    path = with_slashes(request.scope["path"][:200])
    detail = {
        404: f"there is nothing at {path}",
        405: f"{request.method} is not for {path}",
    }.get(error.status_code, str(error.detail))
    # The router names the methods of one route alone.
    allow = {"Allow": ", ".join(methods_of(request.scope["path"]))}
    headers = allow if kind is METHOD_UNKNOWN else error.headers
    return kind_response(kind, detail, request, headers)


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it; the number is for the access log
