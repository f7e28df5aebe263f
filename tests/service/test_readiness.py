"""service/readiness.py: one look at a time, and never an old one for a good one."""

import asyncio
import logging
import threading

import pytest

from service import readiness
from service.errors import StorageUnavailable
from service.readiness import FAILED, SLOW, Readiness


class Store:
    """What is looked at: a look takes as long as it is held, and finds the reasons of its end."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.failure: Exception | None = None
        self.held = threading.Event()
        self.held.set()
        self.looks = 0

    def look(self) -> list[str]:
        self.looks += 1
        self.held.wait()
        if self.failure is not None:
            raise self.failure
        return self.reasons


def test_however_many_ask_there_is_one_look_at_a_time() -> None:
    store = Store()
    store.held.clear()

    async def go() -> None:
        ready = Readiness(store.look)
        asking = [asyncio.ensure_future(ready.now()) for _ in range(50)]
        while store.looks == 0:
            await asyncio.sleep(0.001)
        late = [asyncio.ensure_future(ready.now()) for _ in range(50)]
        await asyncio.sleep(0)
        store.held.set()
        assert await asyncio.gather(*asking, *late) == [[]] * 100
        ready.close()

    asyncio.run(go())
    assert store.looks <= 3


def test_a_look_that_has_begun_does_for_nobody_who_asks_later() -> None:
    store = Store()

    async def go() -> None:
        ready = Readiness(store.look)
        assert await ready.now() == []
        store.reasons = ["the disk is gone"]
        assert await ready.now() == ["the disk is gone"]
        store.reasons = []
        assert await ready.now() == []
        ready.close()

    asyncio.run(go())


def test_a_look_that_does_not_end_is_never_told_as_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "QUICK_S", 0.01)
    monkeypatch.setattr(readiness, "PATIENCE_S", 0.01)
    store = Store()

    async def go() -> None:
        ready = Readiness(store.look)
        store.held.clear()
        assert await ready.now() == [SLOW]
        store.held.set()
        store.reasons = ["locked"]
        while ready.reasons != ["locked"]:
            await asyncio.sleep(0.001)
        store.held.clear()
        assert await ready.now() == ["locked"]  # which is known, whatever the next look finds
        store.held.set()
        ready.close()

    asyncio.run(go())


def test_what_changes_is_in_the_log_once(caplog: pytest.LogCaptureFixture) -> None:
    store = Store()

    async def go() -> None:
        ready = Readiness(store.look)
        for reasons in ([], ["locked"], ["locked"], ["locked", "full"], [], []):
            store.reasons = reasons
            assert await ready.now() == reasons
        store.failure = StorageUnavailable("locked")
        assert await ready.now() == [str(store.failure)]
        ready.close()

    with caplog.at_level(logging.INFO):
        asyncio.run(go())
    told = [(line.getMessage(), getattr(line, "reasons", None)) for line in caplog.records]
    assert told == [
        ("not ready", ["locked"]),
        ("not ready", ["full"]),
        ("ready again", None),
        ("not ready", [str(StorageUnavailable("locked"))]),
    ]


def test_a_look_that_fails_is_told_and_does_not_end_the_looking(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = Store()
    store.failure = RuntimeError("not a domain error")

    async def go() -> None:
        ready = Readiness(store.look)
        assert await ready.now() == [FAILED]
        store.failure = None
        assert await ready.now() == []
        ready.close()

    asyncio.run(go())
    assert "a look at the store failed" in caplog.text


def test_after_its_end_it_looks_again_for_an_application_that_starts_again() -> None:
    store = Store()

    async def go() -> None:
        ready = Readiness(store.look)
        assert await ready.now() == []
        ready.close()
        store.reasons = ["the disk is gone"]
        assert await ready.now() == ["the disk is gone"]
        ready.close()

    asyncio.run(go())
