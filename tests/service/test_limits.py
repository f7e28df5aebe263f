"""service/guard/limits.py: so many and no more, over threads and processes, over a restart."""

import multiprocessing
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from service.errors import MienError, QuotaSpent, RateLimited, StorageUnavailable
from service.guard.limits import Limits


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in seconds, as a test sets it."""
    clock = [1_000_000.0]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    return clock


@pytest.fixture
def limits(tmp_path: Path) -> Iterator[Limits]:
    limits = Limits(tmp_path / "data" / "limits.sqlite3")
    yield limits
    limits.close()


def asked(limits: Limits, times: int, **limit: str) -> int:
    """How many of so many requests were let in."""
    passed = 0
    for _ in range(times):
        try:
            limits.spend("desk", limit.get("rate"), limit.get("quota"))
            passed += 1
        except (RateLimited, QuotaSpent):
            pass
    return passed


def test_a_rate_holds_in_every_window_of_its_length(limits: Limits, now: list[float]) -> None:
    assert asked(limits, 3, rate="4/minute") == 3
    now[0] += 50
    assert asked(limits, 3, rate="4/minute") == 1
    now[0] += 9.9
    assert asked(limits, 3, rate="4/minute") == 0
    now[0] += 0.2  # the first three are a minute old
    assert asked(limits, 9, rate="4/minute") == 3


def test_a_quota_holds_in_a_window_that_begins_with_its_first_request(
    limits: Limits, now: list[float]
) -> None:
    assert asked(limits, 5, quota="3/day") == 3
    now[0] += 86_399
    assert asked(limits, 5, quota="3/day") == 0
    now[0] += 2
    assert asked(limits, 5, quota="3/day") == 3


def test_who_is_refused_is_told_when_there_is_room(limits: Limits, now: list[float]) -> None:
    asked(limits, 2, rate="2/minute", quota="3/day")
    now[0] += 20.5
    with pytest.raises(RateLimited) as early:
        limits.spend("desk", "2/minute", "3/day")
    assert (early.value.limit, early.value.retry_after_s) == ("2/minute", 40)
    now[0] += 39.6
    limits.spend("desk", "2/minute", "3/day")
    with pytest.raises(QuotaSpent) as spent:
        limits.spend("desk", "2/minute", "3/day")
    assert (spent.value.limit, spent.value.retry_after_s) == ("3/day", 86_340)


def test_a_request_beyond_the_rate_takes_nothing_of_the_quota(
    limits: Limits, now: list[float]
) -> None:
    assert asked(limits, 9, rate="1/second", quota="2/day") == 1
    now[0] += 1.1
    assert asked(limits, 9, rate="1/second", quota="2/day") == 1


def test_keys_are_counted_each_for_itself(limits: Limits, now: list[float]) -> None:
    limits.spend("desk", "1/minute", "1/day")
    limits.spend("gate", "1/minute", "1/day")
    limits.spend("free", None, None)
    for name in ("desk", "gate"):
        with pytest.raises(RateLimited):
            limits.spend(name, "1/minute", "1/day")


def test_a_clock_that_is_set_back_keeps_nobody_out(limits: Limits, now: list[float]) -> None:
    """As after a start with a clock that was a year ahead."""
    now[0] += 365 * 86_400
    assert asked(limits, 9, rate="2/minute", quota="3/day") == 2
    assert asked(limits, 9, quota="3/day") == 1
    now[0] -= 365 * 86_400
    assert asked(limits, 9, rate="2/minute") == 2
    assert asked(limits, 9, quota="3/day") == 3
    with pytest.raises(RateLimited) as refused:
        limits.spend("desk", "2/minute", None)
    assert refused.value.retry_after_s == 60


def test_counts_outlast_a_restart(tmp_path: Path, now: list[float]) -> None:
    path = tmp_path / "limits.sqlite3"
    first = Limits(path)
    assert asked(first, 2, rate="2/hour", quota="5/day") == 2
    modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    first.close()
    second = Limits(path)
    assert asked(second, 2, rate="2/hour") == 0
    now[0] += 3601
    assert asked(second, 9, rate="9/hour", quota="5/day") == 3
    second.close()
    assert modes == dict.fromkeys((path.name, f"{path.name}-shm", f"{path.name}-wal"), 0o600)


def hammer(path: Path, together: Barrier) -> list[int]:
    limits, passed = Limits(path), []
    with ThreadPoolExecutor(2) as threads:
        for limit in ({"quota": "100/day"}, {"rate": "100/day"}):
            together.wait()
            asking = [threads.submit(asked, limits, 60, **limit) for _ in range(2)]
            passed.append(sum(future.result() for future in asking))
    limits.close()
    return passed


def test_they_hold_exactly_over_processes_and_threads(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    with spawn.Manager() as manager, ProcessPoolExecutor(2, mp_context=spawn) as processes:
        together = manager.Barrier(2, timeout=120)
        path = tmp_path / "limits.sqlite3"
        counting = [processes.submit(hammer, path, together) for _ in range(2)]
        counts = [future.result() for future in counting]
    assert [sum(both) for both in zip(*counts, strict=True)] == [100, 100]


def test_a_new_file_that_another_is_making_at_this_moment_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = sqlite3.connect(tmp_path / "limits.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waited = []
    monkeypatch.setattr(time, "sleep", lambda _: waited.append(other.execute("ROLLBACK")))
    limits = Limits(tmp_path / "limits.sqlite3")
    limits.spend("desk", "4/minute", None)
    assert len(waited) == 1
    limits.close()
    other.close()


def test_what_cannot_be_counted_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "limits.sqlite3"
    path.write_bytes(b"no database " * 1000)
    limits = Limits(path)
    with pytest.raises(StorageUnavailable, match="requests cannot be counted"):
        limits.spend("desk", "1/minute", None)
    limits.spend("free", None, None)


def test_a_folder_that_cannot_be_is_told_as_what_cannot_be_counted(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageUnavailable, match="requests cannot be counted: File exists;"):
        Limits(tmp_path / "file" / "limits.sqlite3").spend("desk", "1/minute", None)


def test_a_file_that_another_keeps_locked_is_waited_for_and_then_told(
    limits: Limits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.guard.limits._PATIENCE_S", 0.05)
    limits.spend("desk", "5/minute", None)
    holder = sqlite3.connect(tmp_path / "data" / "limits.sqlite3", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(MienError, match="locked"):
        limits.spend("desk", "5/minute", None)
    holder.execute("ROLLBACK")
    holder.close()
    limits.spend("desk", "5/minute", None)
