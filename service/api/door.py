"""The door: who comes in, and what of that the audit log has. It stands inside the envelope.

A key is looked at before the body is read, so that who may not come in learns nothing and costs
little: without a key that holds every path but the open ones answers the same 401, those that do
not exist too. What a visitor does is recorded before the answer goes out, and of what changes
something the beginning before it begins; what cannot be recorded is not done, or not told.
"""

import asyncio
from collections import Counter
from typing import Any, Final

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.calls import record_of
from service.api.paths import with_slashes
from service.api.problems import error_response, shown
from service.api.rights import Asked, asked_of
from service.api.visit import Visit
from service.errors import (
    AuditIncomplete,
    AuditUnavailable,
    GalleryForbidden,
    KeyRequired,
    MienError,
    ScopeMissing,
    StorageUnavailable,
)
from service.guard.audit import Entry
from service.guard.gate import ANYONE, KEYS_UNREADABLE, NOBODY, Gate
from service.guard.keys import Key
from service.observe.logs import log
from service.observe.record import UNKNOWN_ROUTE, Record

_BEARER: Final = "bearer "
_REFUSALS: Final = frozenset(one.slug for one in (KeyRequired, ScopeMissing, GalleryForbidden))


class Door:
    """Lets in who may, and has the gate record what they do."""

    def __init__(self, app: ASGIApp, *, gate: Gate) -> None:
        self.app = app
        self._gate = gate
        self._unreadable: str | None = None  # why, as the log has it already

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        asked = asked_of(scope["method"], scope["path"])
        if asked.open:
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        visit = Visit(NOBODY, None)
        try:
            await self._admit(request, asked, visit)
            await _Witness(self._gate, visit, request, self.app).let_in(send)
        except MienError as error:
            record_of(request).route = asked.route or UNKNOWN_ROUTE  # it was not come to
            await error_response(error, request)(scope, receive, send)
        if record_of(request).problem in _REFUSALS:
            await self._note_refusal(request, visit, asked.route or UNKNOWN_ROUTE)

    async def _admit(self, request: Request, asked: Asked, visit: Visit) -> None:
        """Makes the visit. Raises KeyRequired, RateLimited, QuotaSpent, ScopeMissing,
        GalleryForbidden, StorageUnavailable."""
        if self._gate.keys is None:
            visit.actor = ANYONE
        else:
            visit.key = self._holder(request)
            visit.actor = record_of(request).key = visit.key.name
            if visit.key.rate or visit.key.quota:
                await asyncio.to_thread(self._gate.spend, visit.key)
        for right in asked.rights:
            visit.require(right)
        visit.act, visit.changes = asked.rights[0].act, asked.rights[0].changes
        for name, value in asked.parameters.items():
            visit.what[name] = shown(with_slashes(value))
        if "gallery" in asked.parameters:
            visit.enter(asked.parameters["gallery"])
        request.state.visit = visit

    def _holder(self, request: Request) -> Key:
        """The key that the request shows. Raises KeyRequired; StorageUnavailable without saying
        why, which is the operator's to know and stands in the log."""
        try:
            key = self._gate.holder(_shown_keys(request))
        except StorageUnavailable as error:
            if error.reason != self._unreadable:
                log.error("the keys cannot be read", reason=error.reason)
            self._unreadable = error.reason
            raise StorageUnavailable(KEYS_UNREADABLE) from error
        self._unreadable = None
        return key

    async def _note_refusal(self, request: Request, visit: Visit, route: str) -> None:
        record = record_of(request)
        what = {"request_id": record.request_id, "method": record.method, "route": route}
        await asyncio.to_thread(self._gate.refuse, visit.actor, str(record.problem), **what)


class _Witness:
    """Watches one visit: its beginning where it changes something, and its end."""

    def __init__(self, gate: Gate, visit: Visit, request: Request, app: ASGIApp) -> None:
        self._gate = gate
        self._visit = visit
        self._request = request
        self._app = app
        self._begun: Entry | None = None
        self._ended = False

    async def let_in(self, send: Send) -> None:
        """Answers the request. Raises AuditUnavailable where its beginning cannot be recorded."""
        visit, request = self._visit, self._request
        if self._gate.audit is None or visit.act is None:
            await self._app(request.scope, request.receive, send)
            return
        if visit.changes:
            self._begun = await self._record(phase="begun")
        replaced = False

        async def send_recorded(message: Message) -> None:
            nonlocal replaced
            if message["type"] == "http.response.start" and not self._ended:
                try:
                    await self._end(message["status"])
                except MienError as error:
                    replaced = True
                    answer = error_response(error, request)
                    await answer(request.scope, request.receive, send)
            if not replaced:
                await send(message)

        try:
            await self._app(request.scope, request.receive, send_recorded)
        except Exception:
            if not self._ended:
                await self._end(500)
            raise

    async def _end(self, status: int) -> None:
        """Records how it ended: that of a change always, that of a search where it was answered.

        Raises AuditUnavailable, AuditIncomplete, where the answer must not go out for it.
        """
        self._ended = True
        done = status < 400
        if self._visit.act is None or (self._begun is None and not done):
            return
        what: dict[str, Any] = {"status": status, **_counts(record_of(self._request))}
        if self._begun is not None:
            what |= {"phase": "ended", "begun": self._begun.sequence}
        try:
            await self._record(**what)
        except AuditUnavailable as error:
            if self._begun is None:
                raise
            if done:
                raise AuditIncomplete(self._begun.sequence, error.reason) from error

    async def _record(self, **what: Any) -> Entry:
        visit, request_id = self._visit, record_of(self._request).request_id
        assert visit.act is not None
        what = {"request_id": request_id, **visit.what, **what}
        entry: Entry = await asyncio.to_thread(
            lambda: self._gate.record(visit.actor, str(visit.act), **what)
        )
        return entry


def _counts(record: Record) -> dict[str, Any]:
    """What came of a request, in numbers; the problem's slug where that was the answer."""
    stages = record.stages
    what: dict[str, Any] = {} if record.problem is None else {"problem": record.problem}
    if stages.images:
        what["images"] = len(stages.images)
        what["faces"] = sum(len(scores) for scores in stages.images if scores is not None)
    if stages.decisions:
        what["decisions"] = dict(sorted(Counter(stages.decisions).items()))
    return what


def _shown_keys(request: Request) -> list[str]:
    """Every key that the request shows, as a bearer's token or in X-API-Key."""
    tokens = [
        value[len(_BEARER) :].strip() if value[: len(_BEARER)].lower() == _BEARER else ""
        for value in request.headers.getlist("authorization")
    ]
    return [*tokens, *request.headers.getlist("x-api-key")]
