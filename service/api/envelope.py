"""Around every call: its id, and an answer even when the code fails."""

import logging
import re
import uuid
from typing import Final

from fastapi import FastAPI, Request, Response
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.paths import keep_slashes
from service.api.problems import (
    INTERNAL,
    METHOD_UNKNOWN,
    PATH_UNKNOWN,
    REQUEST_REFUSED,
    error_response,
    kind_response,
)
from service.errors import MienError

REQUEST_ID: Final = "X-Request-ID"
_SANE_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_log: Final = logging.getLogger("mien")


class Envelope:
    """Gives each request an id (the caller's, where sane) and each failure a problem with it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        keep_slashes(scope)
        if scope["method"] == "HEAD":  # as GET; the server leaves the body out
            scope = {**scope, "method": "GET"}
        request = Request(scope, receive)
        given = request.headers.get(REQUEST_ID, "")
        request.state.request_id = given if _SANE_ID.fullmatch(given) else uuid.uuid4().hex
        begun = False

        async def send_with_id(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                MutableHeaders(scope=message)[REQUEST_ID] = request.state.request_id
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception:
            _log.exception(
                "request %s failed: %s %s",
                request.state.request_id,
                scope["method"],
                scope["path"],
            )
            if not begun:
                detail = "something went wrong here; nothing is known to be wrong with the call"
                await kind_response(INTERNAL, detail, request)(scope, receive, send_with_id)


def answer_errors(app: FastAPI) -> None:
    """Every error that reaches the application becomes a problem."""
    app.add_exception_handler(MienError, _domain_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _gone)


async def _domain_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, MienError)
    return error_response(error, request)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind = {404: PATH_UNKNOWN, 405: METHOD_UNKNOWN}.get(error.status_code, REQUEST_REFUSED)
    detail = {
        404: f"there is nothing at {request.url.path[:200]}",
        405: f"{request.method} is not for {request.url.path[:200]}",
    }.get(error.status_code, str(error.detail))
    return kind_response(kind, detail, request, error.headers)


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it; the number is for the access log
