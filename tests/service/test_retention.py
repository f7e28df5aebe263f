"""service/retention.py: who is kept no longer goes, with a receipt, and nobody by a wrong clock."""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from service import retention
from service.errors import AuditUnavailable, ErasureIncomplete
from service.gallery import FILE_NAME
from service.gallery.contract import Idempotency
from service.gallery.sqlite import SqliteFile
from service.gallery.store import Store
from service.guard.audit import Audit, read_entries, verify
from service.guard.receipts import EXPIRED, Receipts
from service.retention import SWEEP, keep_swept, sweep
from tests.service.gallery_contract import enroll, search, units
from tests.service.test_gallery_sqlite import is_in, raw_files

DAY = 86_400.0
CLOCK_0 = 1_800_000_000.0


@dataclass
class House:
    """A store with a clock of its own, seconds since 1970, and the log of its receipts."""

    store: Store
    receipts: Receipts
    folder: Path
    now: float = CLOCK_0

    def live(self, days: float, **more: Any) -> list[retention.Swept]:
        """What the sweeps did while the service ran on, four a day."""
        swept = []
        for _ in range(round(days * 4)):
            self.now += DAY / 4
            swept.append(sweep(self.store, self.receipts, **more))
        return swept

    def people(self) -> list[str]:
        return [person.id for person in self.store.list_persons("default").items]


@pytest.fixture(params=["clear", "sealed"])
def house(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[House]:
    folder = tmp_path / "data"
    folder.mkdir()
    masters = partial(dict, {"first": bytes(32)}) if request.param == "sealed" else None
    house = House(None, Receipts(Audit(tmp_path / "audit.jsonl")), folder)  # type: ignore[arg-type]
    house.store = Store(
        folder / FILE_NAME,
        search_threads=1,
        patience_s=0.2,
        masters=masters,
        now=lambda: house.now,
    )
    house.store.update_gallery("default", retention_days=10)
    yield house
    house.store.close()


def test_who_was_not_enrolled_or_changed_for_so_long_is_erased_with_a_receipt(
    house: House,
) -> None:
    ada, bob, eve = units(3, 0)
    (face,) = enroll(house.store, "ada-of-the-files", ada)
    enroll(house.store, "bob", bob)
    enroll(house.store, "eve", eve)
    house.live(5)
    enroll(house.store, "bob", bob)
    house.store.update_person("default", "eve", name="Eve")
    assert [swept.due for swept in house.live(4.9)] == [0] * 20
    first, _ = house.live(0.5)
    assert house.people() == ["bob", "eve"]
    [receipt] = first.receipts
    assert (receipt["gallery"], receipt["person_id"]) == ("default", "ada-of-the-files")
    assert (receipt["face_ids"], receipt["incomplete"]) == ([face], None)
    assert [found[0].person_id for found in search(house.store, bob, eve, top_k=1)] == [
        "bob",
        "eve",
    ]
    raw = raw_files(house.folder)
    assert not is_in(ada, raw)
    assert b"ada-of-the-files" not in raw
    due, begun, erased = read_entries(house.receipts.audit.path)
    assert (due.action, due.what) == (SWEEP, {"due": 1})
    who = {"gallery": "default", "person_id": "ada-of-the-files"}
    assert (begun.action, begun.what) == (EXPIRED, {"phase": "begun", **who})
    assert (erased.action, erased.actor, erased.sequence) == (EXPIRED, "mien", receipt["audit"])
    assert house.receipts.find("default", receipt["receipt"]) == receipt
    assert verify(house.receipts.audit.path).flaw is None


def test_each_gallery_keeps_its_people_for_a_time_of_its_own(house: House) -> None:
    house.store.create_gallery("for-ever")
    house.store.create_gallery("short", retention_days=3)
    for gallery in ("default", "for-ever", "short"):
        enroll(house.store, "ada", units(1, 1)[0], into=gallery)
    house.live(4)
    kept = [gallery.name for gallery in house.store.list_galleries().items if gallery.persons]
    assert kept == ["default", "for-ever"]
    house.live(20)
    kept = [gallery.name for gallery in house.store.list_galleries().items if gallery.persons]
    assert kept == ["for-ever"]


@pytest.mark.parametrize("leap_days", [365.0, 3650.0])
def test_a_clock_that_was_set_ahead_and_back_erases_nobody(
    house: House, leap_days: float, caplog: pytest.LogCaptureFixture
) -> None:
    enroll(house.store, "ada", units(1, 2)[0])
    house.live(2)
    house.now += leap_days * DAY
    held = sweep(house.store, house.receipts)
    assert (held.due, held.held_s, held.receipts) == (1, DAY, [])
    assert "the clock leapt" in caplog.text
    assert [swept.receipts for swept in house.live(0.75)] == [[], [], []]
    house.now -= leap_days * DAY  # somebody has looked
    assert [swept.due for swept in house.live(2)] == [0] * 8
    assert house.people() == ["ada"]
    assert list(read_entries(house.receipts.audit.path)) == []


def test_after_a_leap_and_a_day_it_goes_on(house: House) -> None:
    """A service that was off for a month: the clock is right, as the day to look at it shows."""
    enroll(house.store, "ada", units(1, 3)[0])
    house.live(2)
    house.now += 30 * DAY
    assert [len(swept.receipts) for swept in house.live(1.5)] == [0, 0, 0, 0, 1, 0]


def test_who_looked_at_the_clock_may_say_so(house: House) -> None:
    enroll(house.store, "ada", units(1, 4)[0])
    house.now += 30 * DAY
    assert sweep(house.store, house.receipts).receipts == []
    assert len(sweep(house.store, house.receipts, trust_clock=True).receipts) == 1
    assert house.people() == []


def test_one_process_sweeps_at_a_time(house: House) -> None:
    house.live(2)
    enroll(house.store, "ada", units(1, 5)[0])
    house.live(10)
    house.store.create_person("default", person_id="bob")
    house.now += 3 * 60
    assert house.store.note_clock(least_pause_s=150) == 0
    house.now += 100
    assert house.store.note_clock(least_pause_s=150) is None  # the other was here
    assert sweep(house.store, house.receipts, least_pause_s=150) == retention.Swept(0, 0.0)


def test_somebody_who_could_have_no_receipt_is_not_erased(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    enroll(house.store, "ada", units(1, 6)[0])
    house.live(9)
    audit = house.receipts.audit.path
    audit.symlink_to("/dev/full")
    with pytest.raises(AuditUnavailable):
        house.live(2)
    assert house.people() == ["ada"]
    audit.unlink()
    house.live(1)
    assert house.people() == []


@pytest.mark.parametrize(("written", "left"), [(3, ["bob"]), (2, ["bob"]), (1, ["ada", "bob"])])
def test_nobody_is_erased_whom_the_log_does_not_name_though_it_fails_in_the_middle(
    house: House, monkeypatch: pytest.MonkeyPatch, written: int, left: list[str]
) -> None:
    """written: entries until it fails: how many are due, that it begins with ada, her receipt."""
    for person_id, embedding in zip(("ada", "bob"), units(2, 11), strict=True):
        enroll(house.store, person_id, embedding)
    house.live(9)
    record, calls = Audit.record, iter(range(written))

    def fails(audit: Audit, *given: Any, **what: Any) -> Any:
        if next(calls, None) is None:
            raise AuditUnavailable("No space left on device")
        return record(audit, *given, **what)

    with monkeypatch.context() as full:
        full.setattr(Audit, "record", fails)
        with pytest.raises(AuditUnavailable):
            house.live(2)
    assert house.people() == left
    named = [entry.what.get("person_id") for entry in read_entries(house.receipts.audit.path)]
    assert named == [None, "ada", "ada"][:written]
    house.live(1)
    assert house.people() == []


def test_an_erasure_that_is_not_complete_says_so_in_its_receipt(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    enroll(house.store, "ada", units(1, 7)[0])
    house.live(9)

    def held(file: SqliteFile) -> None:
        raise ErasureIncomplete("another process is reading the write-ahead log")

    with monkeypatch.context() as reader:
        reader.setattr(SqliteFile, "wipe", held)
        receipts = [receipt for swept in house.live(2) for receipt in swept.receipts]
    [receipt] = receipts
    assert receipt["done"][0] == "deleted"
    assert "log-truncated" not in receipt["done"]
    assert "write-ahead log" in receipt["incomplete"]


def test_a_sweep_ends_between_two_people_when_it_is_told_to(house: House) -> None:
    for n, embedding in enumerate(units(5, 8)):
        enroll(house.store, f"p{n}", embedding)
    house.live(9)
    house.now += DAY / 2
    house.store.note_clock()
    house.now += DAY
    calls = iter([False, False, True])
    house.store.note_clock()
    swept = sweep(house.store, house.receipts, stopped=lambda: next(calls))
    assert (swept.due, len(swept.receipts), len(house.people())) == (5, 2, 3)


def test_answers_of_before_go_with_the_sweep_though_nobody_enrols(house: House) -> None:
    once = Idempotency("key", "print")
    enroll(house.store, "ada-of-the-files", units(1, 9)[0], idempotency=once)
    house.live(2)
    assert house.store.answered("default", once) is None


def test_a_service_sweeps_at_its_start_and_stops_when_it_is_told(house: House) -> None:
    enroll(house.store, "ada", units(1, 10)[0])
    house.live(9)
    house.now += 0.9 * DAY
    house.store.note_clock()
    house.now += 0.9 * DAY
    gone, erase = threading.Event(), house.store.erase_expired

    def erase_and_tell(*begins: Any) -> Any:
        erasure = erase(*begins)
        if erasure is None:
            gone.set()
        return erasure

    house.store.erase_expired = erase_and_tell  # type: ignore[method-assign]

    async def serve() -> None:
        sweeping = asyncio.create_task(keep_swept(house.store, house.receipts))
        assert await asyncio.to_thread(gone.wait, 30)
        sweeping.cancel()
        await asyncio.wait([sweeping])

    asyncio.run(serve())
    assert house.people() == []


def test_a_clock_that_leaps_drops_no_answer(house: House) -> None:
    """By it the answer is days old, and who repeats the call would be enrolled twice."""
    once = Idempotency("key", "print")
    house.store.note_clock()
    house.live(2)
    enroll(house.store, "ada", units(1, 9)[0], idempotency=once)
    house.now += 3 * DAY
    enroll(house.store, "bob", units(1, 10)[0])  # before anybody has noted the leap
    sweep(house.store, house.receipts)
    enroll(house.store, "bob", units(1, 11)[0])
    assert house.store.answered("default", once) is not None
    house.live(0.75)
    assert house.store.answered("default", once) is not None
    house.live(1)
    assert house.store.answered("default", once) is None
