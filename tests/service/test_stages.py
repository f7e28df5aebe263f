"""service/observe/stages.py: what was measured, summed by stage, in the order of the way."""

import threading

import pytest

from service.observe.stages import Stages


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands at its only number."""
    now = [100.0]
    monkeypatch.setattr("service.observe.stages.time.perf_counter", lambda: now[0])
    return now


def test_a_stage_is_the_sum_of_its_spans_and_total_is_what_went_by(clock: list[float]) -> None:
    stages = Stages()
    for seconds in (0.25, 0.5):
        with stages.measure("detect"):
            clock[0] += seconds
    with stages.measure("decode"):
        clock[0] += 0.125
    clock[0] += 1
    assert stages.timings_ms() == {"decode": 125.0, "detect": 750.0, "total": 1875.0}
    assert list(stages.seconds()) == ["decode", "detect"]


def test_a_stage_that_fails_took_its_time_too(clock: list[float]) -> None:
    stages = Stages()

    def fail() -> None:
        with stages.measure("store"):
            clock[0] += 2
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert stages.seconds() == {"store": 2.0}


def test_threads_that_measure_at_once_lose_nothing() -> None:
    stages = Stages()

    def measure() -> None:
        for _ in range(500):
            with stages.measure("align"):
                pass

    threads = [threading.Thread(target=measure) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stages.spans) == 4000
