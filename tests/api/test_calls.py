"""service/api/calls.py: places in line, and clients that go."""

import asyncio
import dataclasses
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from service.api.calls import Line
from service.app import create_app
from service.errors import QueueFull
from service.settings import Settings
from tests.api.test_uploads import scope
from tests.api.wire import problem, slug
from tests.conftest import open_drawn, ready_client
from tests.drawn import drawn_photo

PHOTO = drawn_photo(1)


def test_a_line_has_as_many_places_as_it_says_and_gives_them_back() -> None:
    line = Line(2)
    with line.place(), line.place():
        with pytest.raises(QueueFull) as full, line.place():
            pass
        assert (full.value.value, full.value.limit) == (2, 2)
    with line.place():
        assert line.inside == 1


def test_full_queue_is_refused_with_503_and_when_to_come_again(settings: Settings) -> None:
    inside, may_go = threading.Event(), threading.Event()

    def wait_inside(*_: Any) -> list[Any]:
        inside.set()
        assert may_go.wait(60)
        return []

    app = create_app(settings.model_copy(update={"queue": 1}), open_engine=open_drawn)
    with ready_client(app) as client, ThreadPoolExecutor(1) as other:
        service = app.state.service
        service.engine = dataclasses.replace(service.engine, detect=wait_inside)
        first = other.submit(client.post, "/detect", files={"image": PHOTO})
        assert inside.wait(60)
        refused = client.post("/detect", files={"image": PHOTO})
        assert client.get("/galleries").status_code == 200
        may_go.set()
        assert first.result(60).status_code == 200
        assert client.post("/detect", files={"image": PHOTO}).status_code == 200
    assert (refused.status_code, slug(refused)) == (503, "queue-full")
    assert (problem(refused)["value"], problem(refused)["limit"]) == (1, 1)
    assert refused.headers["retry-after"] == "1"


def test_a_client_that_goes_is_worked_for_no_more(app: FastAPI) -> None:
    """Its crops leave the batcher's line and its place is free."""
    crops: Future[Any] = Future()
    submitted = threading.Event()

    def embed(_: Any) -> "Future[Any]":
        submitted.set()
        return crops

    async def call() -> None:
        messages = iter([{"type": "http.request", "body": PHOTO, "more_body": False}])

        async def receive() -> Any:
            if message := next(messages, None):
                return message
            await asyncio.to_thread(submitted.wait, 60)
            return {"type": "http.disconnect"}

        async def send(_: Any) -> None:
            return None

        await app(scope("/embeddings", [(b"content-type", b"image/png")]), receive, send)

    with ready_client(app):
        service = app.state.service
        service.engine = dataclasses.replace(service.engine, embed=embed)
        asyncio.run(call())
        assert crops.cancelled()
        assert service.line.inside == 0


def test_a_client_that_goes_while_it_sends_is_let_go(app: FastAPI) -> None:
    async def call() -> list[Any]:
        messages = iter(
            [
                {"type": "http.request", "body": PHOTO[:100], "more_body": True},
                {"type": "http.disconnect"},
            ]
        )
        sent: list[Any] = []

        async def receive() -> Any:
            return next(messages)

        async def send(message: Any) -> None:
            sent.append(message)

        await app(scope("/detect", [(b"content-type", b"image/png")]), receive, send)
        return sent

    with ready_client(app):
        assert asyncio.run(call())[0]["status"] == 499
        assert app.state.service.line.inside == 0


def test_a_failed_call_gives_its_place_back(client: TestClient) -> None:
    for body in (b"", b"no image", b"x"):
        client.post("/detect", content=body, headers={"Content-Type": "image/png"})
    assert client.app.state.service.line.inside == 0  # type: ignore[attr-defined]
