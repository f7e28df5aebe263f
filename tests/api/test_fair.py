"""One caller beside others: turns, shares, deadlines, and what is left of calls that are over."""

import asyncio
import dataclasses
import gc
import json
import socket
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI, Request
from starlette.testclient import TestClient

from service import recognition
from service.api.calls import in_time
from service.api.shares import Held, Line, Shared
from service.app import create_app
from service.errors import BuffersFull, QueueFull, ShareUsed
from service.observe.stages import Stages
from service.settings import Settings
from service.turns import Turn
from tests.api.test_uploads import scope
from tests.api.wire import problem, send, slug
from tests.conftest import open_drawn, ready_client
from tests.drawn import drawn_photo, find_drawn, png

PHOTO = drawn_photo(1)
LARGE = drawn_photo(1, size=(2000, 1200))
MIB = 1024 * 1024
PNG = [(b"content-type", b"image/png")]


@contextmanager
def served(
    settings: Settings, detect: Callable[..., Any] = find_drawn, **changes: Any
) -> Iterator[TestClient]:
    """A client of the application with these settings, whose faces are found by `detect`."""
    app = create_app(settings.model_copy(update=changes), open_engine=open_drawn)
    with ready_client(app) as client:
        app.state.service.engine = dataclasses.replace(app.state.service.engine, detect=detect)
        yield client


def app_of(client: TestClient) -> FastAPI:
    app = client.app
    assert isinstance(app, FastAPI)
    return app


class Blocked:
    """A detector that stands still until it may go on; notes the widths of what it sees."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.may_go = threading.Event()
        self.widths: list[int] = []

    def __call__(self, photograph: Any, min_face_px: int) -> list[Any]:
        self.widths.append(photograph.width)
        self.entered.release()
        assert self.may_go.wait(120)
        return find_drawn(photograph, min_face_px)


class Caller:
    """A caller at the application's own door, who sends a body and goes when told to."""

    def __init__(
        self, app: FastAPI, *pieces: bytes, path: str = "/detect", host: str = "a"
    ) -> None:
        self._app = app
        self._pieces = list(pieces)
        self._scope = {**scope(path, PNG), "client": (host, 1)}
        self.sent: list[Any] = []
        self.goes = asyncio.Event()
        self.waits = asyncio.Event()  # set when all that there is has been sent

    async def call(self, *, unfinished: bool = False) -> None:
        async def receive() -> Any:
            if self._pieces:
                body = self._pieces.pop(0)
                more = unfinished or bool(self._pieces)
                return {"type": "http.request", "body": body, "more_body": more}
            self.waits.set()
            await self.goes.wait()
            return {"type": "http.disconnect"}

        async def send_(message: Any) -> None:
            self.sent.append(message)

        await self._app(self._scope, receive, send_)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def slug(self) -> str:
        return str(json.loads(self.sent[1]["body"])["type"].rsplit("/", 1)[1])


# Turns.


def test_a_call_of_many_large_images_lets_every_other_call_take_its_turn(
    settings: Settings,
) -> None:
    blocked = Blocked()
    with served(settings, blocked, photographs=1) as client, ThreadPoolExecutor(2) as others:
        crowd = others.submit(send, client, "/detect", "multipart", [LARGE] * 6)
        assert blocked.entered.acquire(timeout=60)
        other = drawn_photo(2, size=(2100, 1200))  # too large for the thread of small ones
        single = others.submit(send, client, "/detect", "raw", [other])
        line = app_of(client).state.service.engine.photographs._line
        while len(line) < 6:  # the crowd's other five and the single one
            assert not single.done()
        blocked.may_go.set()
        assert single.result(120).status_code == crowd.result(120).status_code == 200
    assert blocked.widths.index(2100) <= 2


def test_a_small_photograph_is_answered_while_large_ones_have_every_thread(
    settings: Settings,
) -> None:
    blocked = Blocked()

    def detect(photograph: Any, px: int) -> list[Any]:
        return (blocked if photograph.width == 2000 else find_drawn)(photograph, px)

    with served(settings, detect, photographs=2) as client, ThreadPoolExecutor(1) as other:
        crowd = other.submit(send, client, "/detect", "multipart", [LARGE] * 4)
        assert blocked.entered.acquire(timeout=60)
        assert blocked.entered.acquire(timeout=60)
        for _ in range(3):
            answer = send(client, "/identify", "raw", [PHOTO])
            assert (answer.status_code, len(answer.json()["images"][0]["faces"])) == (200, 1)
        assert not crowd.done()
        blocked.may_go.set()
        assert crowd.result(120).status_code == 200


# Faces and candidates.


@pytest.mark.parametrize("path", ["/detect", "/embeddings", "/identify", "/expression"])
def test_faces_beyond_the_limit_are_told_and_not_worked_on(settings: Settings, path: str) -> None:
    crops: list[int] = []
    with served(settings, max_faces=2) as client:
        service = app_of(client).state.service
        embed = service.engine.embed

        def counted(of_faces: Any) -> Any:
            crops.append(len(of_faces))
            return embed(of_faces)

        service.engine = dataclasses.replace(service.engine, embed=counted)
        crowd = drawn_photo(1, 2, 3, sides=(60, 100, 80))
        many, few = send(client, path, "multipart", [crowd, PHOTO]).json()["images"]
    assert many["truncated"] is True
    assert "truncated" not in few
    assert [face["box"]["width"] for face in many["faces"]] == [100, 80]
    assert all(count <= 2 for count in crops)


def test_a_limit_that_was_asked_for_truncates_nothing(settings: Settings) -> None:
    with served(settings, max_faces=2) as client:
        found = send(client, "/detect", "raw", [drawn_photo(1, 2, 3)], {"limit": 2}).json()
    assert "truncated" not in found["images"][0]


@pytest.mark.parametrize(
    ("path", "fields"), [("/identify", {}), ("/analyze", {"features": "identity"})]
)
def test_candidates_of_a_call_are_shared_out_among_its_faces(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, path: str, fields: dict[str, str]
) -> None:
    monkeypatch.setattr(recognition, "MOST_CANDIDATES", 7)
    for person in range(4):
        send(client, "/enroll", "raw", [drawn_photo(person)], {"person_id": str(person)})
    images = [drawn_photo(1, 2), PHOTO]
    found = send(client, path, "multipart", images, {**fields, "top_k": 4}).json()
    faces = [face for image in found["images"] for face in image["faces"]]
    assert [len(face["candidates"]) for face in faces] == [2, 2, 2]
    assert [face["candidates"][0]["person_id"] for face in faces] == ["1", "2", "1"]
    assert found["candidates_per_face"] == 2
    alone = send(client, path, "multipart", [PHOTO], {**fields, "top_k": 4}).json()
    assert len(alone["images"][0]["faces"][0]["candidates"]) == 4
    assert "candidates_per_face" not in alone


# Time.


def test_a_call_whose_time_is_over_is_refused_and_no_further_stage_begins(
    settings: Settings,
) -> None:
    blocked = Blocked()
    with served(settings, blocked, call_timeout_s=0.2, photographs=1) as client:
        service = app_of(client).state.service
        service.engine = dataclasses.replace(service.engine, embed=pytest.fail)
        while not blocked.entered.acquire(blocking=False):  # its time was over before, if busy
            refused = send(client, "/identify", "multipart", [PHOTO] * 5)
        assert (refused.status_code, slug(refused)) == (503, "call-timed-out")
        assert problem(refused)["limit"] == 0.2
        assert refused.headers["retry-after"] == "1"
        assert service.line.inside == 1  # a thread still has its photograph
        blocked.may_go.set()
        while service.line.inside or app_of(client).state.intake.buffered.held:
            pass
        assert len(blocked.widths) <= 2  # those that were in threads, and none of the others


def test_what_is_being_stored_when_its_time_is_over_is_waited_for() -> None:
    over = asyncio.Event()

    class Told(Stages):
        def stop(self) -> bool:
            over.set()
            return super().stop()

    async def work() -> str:
        await over.wait()
        return "stored"

    async def call() -> str:
        stages = Told()
        service = SimpleNamespace(call_timeout_s=0.0)
        app = SimpleNamespace(state=SimpleNamespace(service=service))
        request = Request({**scope("/enroll", PNG), "app": app}, asyncio.Event().wait)
        with stages.measure("store"):
            return await in_time(request, work(), stages)

    assert asyncio.run(call()) == "stored"


# Who vanishes.


def test_callers_who_vanish_leave_neither_bytes_nor_places(settings: Settings) -> None:
    """25 of them, with a megabyte each, in line behind a photograph that is being worked on."""
    blocked = Blocked()
    with served(settings, blocked, photographs=1) as client, ThreadPoolExecutor(1) as other:
        app, service = app_of(client), app_of(client).state.service
        first = other.submit(send, client, "/detect", "raw", [PHOTO])
        assert blocked.entered.acquire(timeout=60)

        async def vanish() -> None:
            callers = [Caller(app, bytes(MIB), host=f"10.0.0.{n}") for n in range(25)]
            tasks = [asyncio.create_task(caller.call()) for caller in callers]
            for caller in callers:
                await caller.waits.wait()
                caller.goes.set()
            await asyncio.gather(*tasks)
            assert [caller.status for caller in callers] == [499] * 25

        gc.collect()
        tracemalloc.start()
        try:
            asyncio.run(vanish())
            gc.collect()
            assert tracemalloc.get_traced_memory()[0] < 5 * MIB
        finally:
            tracemalloc.stop()
        assert service.line.inside == 1
        assert app_of(client).state.intake.buffered.held == len(PHOTO)
        blocked.may_go.set()
        assert first.result(120).status_code == 200
    assert blocked.widths == [640]


def test_a_caller_who_vanishes_is_counted_until_the_thread_is_done_with_their_image(
    settings: Settings,
) -> None:
    blocked = Blocked()
    with served(settings, blocked, photographs=1) as client:
        service = app_of(client).state.service

        async def vanish() -> None:
            caller = Caller(app_of(client), PHOTO)
            task = asyncio.create_task(caller.call())
            await asyncio.to_thread(blocked.entered.acquire)
            caller.goes.set()
            await task
            assert caller.status == 499

        asyncio.run(vanish())
        assert (service.line.inside, app_of(client).state.intake.buffered.held) == (1, len(PHOTO))
        blocked.may_go.set()
        while service.line.inside or app_of(client).state.intake.buffered.held:
            pass


# Bodies.


def test_a_call_has_no_place_before_its_body_has_come(settings: Settings) -> None:
    """70 that begin and do not end, where there are four places, refuse nobody."""
    with served(settings, queue=4) as client:
        app, service = app_of(client), app_of(client).state.service

        async def beside() -> None:
            slow = [Caller(app, b"\x89", b"P") for _ in range(70)]
            tasks = [asyncio.create_task(caller.call(unfinished=True)) for caller in slow]
            for caller in slow:
                await caller.waits.wait()
            assert (service.line.inside, app_of(client).state.intake.buffered.held) == (0, 140)
            good = Caller(app, PHOTO)
            await good.call()
            assert good.status == 200
            for caller in slow:
                caller.goes.set()
            await asyncio.gather(*tasks)

        asyncio.run(beside())
        assert app_of(client).state.intake.buffered.held == 0


def test_a_body_that_comes_too_slowly_is_ended(settings: Settings) -> None:
    with served(settings) as client:
        state = app_of(client).state
        state.intake = dataclasses.replace(state.intake, pause_s=0.05)
        caller = Caller(app_of(client), PHOTO[:1], PHOTO[1:2])
        asyncio.run(caller.call(unfinished=True))
        assert (caller.status, caller.slug) == (408, "body-stalled")
        body = json.loads(caller.sent[1]["body"])
        assert (body["value"], body["limit"], body["seconds"]) == (2, 10240, 0.05)
        assert (b"connection", b"close") in caller.sent[0]["headers"]
        assert app_of(client).state.intake.buffered.held == 0


@pytest.mark.parametrize(("piece_bytes", "status"), [(10240, 200), (10239, 408)])
def test_a_body_may_take_its_time_while_it_keeps_the_least_rate(
    settings: Settings, piece_bytes: int, status: int
) -> None:
    """Six seconds go by before each piece; the test's own time is not counted among them."""
    photo = png(np.random.default_rng(7).integers(0, 256, (120, 160, 3)).astype(np.uint8))
    pieces = [photo[at : at + piece_bytes] for at in range(0, len(photo), piece_bytes)]
    assert len(pieces) > 3
    sent: list[Any] = []
    with served(settings, body_timeout_s=1e9) as client, asyncio.Runner() as runner:
        app, loop = app_of(client), runner.get_loop()
        begun_s, gone_s = loop.time(), 0.0

        async def receive() -> Any:
            nonlocal gone_s
            if not pieces:
                await asyncio.Event().wait()
            gone_s += 6
            for _ in range(3):  # so that the loop looks at its clock
                await asyncio.sleep(0)
            return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

        async def send_(message: Any) -> None:
            sent.append(message)

        loop.time = lambda: begun_s + gone_s  # type: ignore[method-assign]
        runner.run(app(scope("/detect", PNG), receive, send_))
    assert sent[0]["status"] == status


def test_bodies_have_one_budget_and_each_caller_a_share_of_it(settings: Settings) -> None:
    small = {"max_body_bytes": 4000, "max_image_bytes": 4000, "max_buffered_bytes": 8000}
    with served(settings, **small) as client:
        app, budget = app_of(client), app_of(client).state.intake.buffered

        async def beside() -> None:
            first = Caller(app, bytes(3900), host="a")
            tasks = [asyncio.create_task(first.call(unfinished=True))]
            await first.waits.wait()
            more = Caller(app, bytes(500), host="a")
            await more.call()
            assert (more.status, more.slug) == (503, "share-used")
            other = Caller(app, bytes(2000), host="b")
            tasks.append(asyncio.create_task(other.call(unfinished=True)))
            await other.waits.wait()
            assert budget.held == 5900
            third = Caller(app, bytes(2500), host="c")
            await third.call()
            assert (third.status, third.slug) == (503, "buffers-full")
            retry = [value for name, value in third.sent[0]["headers"] if name == b"retry-after"]
            assert retry == [b"1"]
            for one in (first, other):
                one.goes.set()
            await asyncio.gather(*tasks)

        asyncio.run(beside())
        assert budget.held == 0


def test_a_refused_or_failed_call_gives_its_bytes_back(client: TestClient) -> None:
    budget = app_of(client).state.intake.buffered
    for body in (b"", b"no image", b"x"):
        client.post("/detect", content=body, headers={"Content-Type": "image/png"})
    client.post("/galleries", json={"name": "a gallery"})
    client.post("/galleries", json={"name": "team"})
    assert budget.held == 0


def test_a_call_that_finds_no_place_when_its_body_has_come_gives_its_bytes_back(
    settings: Settings,
) -> None:
    blocked = Blocked()
    with served(settings, blocked, queue=1, photographs=1) as client, ThreadPoolExecutor(1) as one:
        app, budget = app_of(client), app_of(client).state.intake.buffered

        async def late() -> Any:
            caller = Caller(app, PHOTO[:10], PHOTO[10:], host="late")
            receive_rest = asyncio.Event()
            pieces, caller._pieces = caller._pieces, []
            asked = asyncio.Event()

            async def receive() -> Any:
                if len(pieces) == 1:
                    asked.set()
                    await receive_rest.wait()
                return {
                    "type": "http.request",
                    "body": pieces.pop(0),
                    "more_body": bool(pieces),
                }

            async def send_(message: Any) -> None:
                caller.sent.append(message)

            task = asyncio.create_task(app(caller._scope, receive, send_))
            await asked.wait()
            first = one.submit(send, client, "/detect", "raw", [PHOTO])
            await asyncio.to_thread(blocked.entered.acquire)
            receive_rest.set()
            await task
            assert (caller.status, caller.slug) == (503, "queue-full")
            assert budget.held == len(PHOTO)
            blocked.may_go.set()
            return await asyncio.wrap_future(first)

        assert asyncio.run(late()).status_code == 200
        assert budget.held == 0


# Shares.


def test_a_caller_may_hold_as_much_as_stays_free_for_others() -> None:
    shared = Shared(64, "places", QueueFull)
    held = {"a": 32, "b": 16, "c": 8, "d": 4, "e": 2, "f": 1}
    for caller, count in held.items():
        for _ in range(count):
            shared.take(1, caller)
        with pytest.raises(ShareUsed) as used:
            shared.take(1, caller)
        assert used.value.value == count
    for caller, count in held.items():
        shared.give_back(count, caller)
    assert shared.held == 0
    assert not shared._of


def test_who_is_nobody_has_no_share_to_keep_to_and_all_have_a_limit() -> None:
    shared = Shared(10, "bytes", BuffersFull)
    shared.take(10, None)
    with pytest.raises(BuffersFull) as full:
        shared.take(1, "ada")
    assert (full.value.value, full.value.limit) == (10, 10)


def test_a_place_that_is_refused_frees_the_bytes_of_its_body() -> None:
    budget, line = Shared(100, "bytes", BuffersFull), Line(1)
    first, second = Held(budget, "ada"), Held(budget, "bo")
    first.add(10)
    second.add(20)
    with line.place(Turn("ada"), first):
        with pytest.raises(QueueFull), line.place(Turn("bo"), second):
            pass
        assert budget.held == 10
    assert budget.held == 0


# Over real connections.


@pytest.fixture
def port(settings: Settings) -> Iterator[int]:
    """The port of a server with four places, which ends bodies that pause for half a second."""
    app = create_app(settings.model_copy(update={"queue": 4}), open_engine=open_drawn)
    service = app.state.service
    app.state.intake = dataclasses.replace(app.state.intake, pause_s=0.5)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    while service.engine is None:
        assert thread.is_alive()
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


def test_seventy_slow_sockets_refuse_nobody_and_are_ended(port: int) -> None:
    head = b"POST /detect HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    slow = [socket.create_connection(("127.0.0.1", port), timeout=120) for _ in range(70)]
    for one in slow:
        one.sendall(head + b"Content-Length: 1000000\r\n\r\n" + PHOTO[:1])
    with socket.create_connection(("127.0.0.1", port), timeout=120) as good:
        good.sendall(head + f"Content-Length: {len(PHOTO)}\r\n\r\n".encode() + PHOTO)
        assert good.recv(100).startswith(b"HTTP/1.1 200 ")
    for one in slow:
        answer = b""
        while piece := one.recv(65536):  # until it is closed from there
            answer += piece
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"/problems/body-stalled" in answer
        one.close()
