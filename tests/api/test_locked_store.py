"""The store locked by another program: readers are answered, so many writers wait."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import pytest
from starlette.testclient import TestClient

from service import app as app_module
from service.app import create_app
from service.errors import QueueFull
from service.gallery import FILE_NAME, open_gallery
from service.settings import Settings
from service.writers import Writers
from tests.api.wire import slug
from tests.conftest import open_drawn, ready_client
from tests.drawn import drawn_photo

WRITERS = 40  # more than asyncio has threads on any machine


@contextmanager
def locked(settings: Settings) -> Iterator[sqlite3.Connection]:
    """The store, in which another program has a transaction that nobody else may write beside."""
    with closing(sqlite3.connect(settings.data / FILE_NAME, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield other


@pytest.fixture
def patient(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A client of a service whose writers wait for the store for as long as the test takes."""
    monkeypatch.setattr(app_module, "open_store", lambda s: open_gallery(s.data, patience_s=3600))
    app = create_app(settings.model_copy(update={"max_writes": WRITERS}), open_engine=open_drawn)
    with ready_client(app) as client:
        yield client


def test_reads_are_answered_while_writers_wait_and_one_too_many_is_refused(
    patient: TestClient, settings: Settings
) -> None:
    photo = {"image": drawn_photo(1)}
    assert patient.post("/enroll", files=photo, data={"person_id": "ada"}).status_code == 201
    service = patient.app.state.service  # type: ignore[attr-defined]

    def write(number: int) -> int:
        body = {"metadata": {"number": number}}
        return int(patient.patch("/galleries/default", json=body).status_code)

    with ThreadPoolExecutor(WRITERS) as callers:
        with locked(settings) as other:
            writing = [callers.submit(write, number) for number in range(WRITERS)]
            while service.engine.writers._inside < WRITERS:
                time.sleep(0.01)
            one_more = patient.patch("/galleries/default", json={"metadata": {}})
            assert (one_more.status_code, slug(one_more)) == (503, "queue-full")
            assert int(one_more.headers["retry-after"]) >= 1
            assert patient.get("/healthz").status_code == 200
            found = patient.post("/identify", files=photo).json()["images"][0]["faces"][0]
            assert found["candidates"][0]["person_id"] == "ada"
            assert patient.get("/galleries/default/persons/ada").json()["faces"] == 1
            assert not any(one.done() for one in writing)
            other.execute("ROLLBACK")
        assert {one.result() for one in writing} == {200}
    assert patient.patch("/galleries/default", json={"metadata": {}}).status_code == 200


def test_a_locked_store_is_told_by_readyz_and_well_again_by_itself(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_module, "open_store", lambda s: open_gallery(s.data, patience_s=0.05))
    with ready_client(create_app(settings, open_engine=open_drawn)) as client:
        with locked(settings) as other:
            [reason] = client.get("/readyz").json()["reasons"]
            assert "keeps it locked" in reason
            other.execute("ROLLBACK")
        while client.get("/readyz").status_code != 200:
            time.sleep(0.01)


def test_a_writer_whose_caller_has_gone_has_its_place_until_it_ends() -> None:

    may_end = threading.Event()

    async def go() -> None:
        writers = Writers(1)
        gone = asyncio.ensure_future(writers.run(may_end.wait))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait([gone])
        with pytest.raises(QueueFull):
            await writers.run(int)
        may_end.set()
        writers.close()
        assert writers._inside == 0

    asyncio.run(go())
