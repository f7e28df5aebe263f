"""service/inference/batcher.py: many callers, one network, and never another's answer."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.errors import NotReady, QueueFull
from service.inference.batcher import Batcher
from service.inference.session import open_session
from tests.standin import recognition_graph

Array = NDArray[Any]


def tripled(batch: Array) -> Array:
    return batch * 3.0


@contextmanager
def batcher_of(
    run: Callable[[Array], Array], *, max_batch: int = 4, max_waiting: int = 100, runners: int = 1
) -> Iterator[Batcher]:
    batcher = Batcher(
        run, max_batch=max_batch, max_waiting=max_waiting, name="test", runners=runners
    )
    try:
        yield batcher
    finally:
        batcher.close()


class Gate:
    """A network that stands still, batch after batch, until it is let through."""

    def __init__(self, run: Callable[[Array], Array] = tripled) -> None:
        self.batches: list[Array] = []
        self.entered = threading.Semaphore(0)
        self.may_pass = threading.Semaphore(0)
        self._run = run

    def __call__(self, batch: Array) -> Array:
        self.batches.append(batch.copy())
        self.entered.release()
        assert self.may_pass.acquire(timeout=30)
        return self._run(batch)

    def open(self) -> None:
        for _ in range(1000):
            self.may_pass.release()


def crops(*values: float) -> Array:
    return np.array(values, np.float32)[:, None]


def occupied(batcher: Batcher, gate: Gate) -> "Future[Array]":
    """Someone in work, so that whoever comes next has to wait."""
    first = batcher.submit(crops(-1))
    assert gate.entered.acquire(timeout=30)
    return first


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=24),
    max_batch=st.integers(1, 7),
    leaves=st.sets(st.integers(0, 23), max_size=6),
    runners=st.integers(1, 4),
)
def test_every_caller_gets_the_answers_of_their_own_crops(
    counts: list[int], max_batch: int, leaves: set[int], runners: int
) -> None:
    """Whatever the sizes, the order and whoever leaves: rows are marked with caller and place."""
    with batcher_of(tripled, max_batch=max_batch, max_waiting=10**6, runners=runners) as batcher:
        start = threading.Barrier(len(counts))

        def call(caller: int) -> Array | None:
            mine = crops(*(caller * 100 + place for place in range(counts[caller])))
            start.wait(timeout=30)
            answer = batcher.submit(mine)
            if caller in leaves and answer.cancel():
                return None
            return answer.result(timeout=30)

        with ThreadPoolExecutor(len(counts)) as callers:
            answers = list(callers.map(call, range(len(counts))))
    for caller, answer in enumerate(answers):
        if answer is not None:
            expected = [[3.0 * (caller * 100 + place)] for place in range(counts[caller])]
            assert answer.tolist() == expected


def test_crops_that_wait_together_run_together_and_no_batch_exceeds_its_size() -> None:
    gate = Gate()
    with batcher_of(gate, max_batch=4) as batcher:
        occupied(batcher, gate)
        waiting = [batcher.submit(crops(i, i + 0.5)) for i in range(3)]
        assert batcher.waiting == 6
        gate.open()
        assert [w.result(30).ravel().tolist() for w in waiting] == [[0, 1.5], [3, 4.5], [6, 7.5]]
    assert [batch.ravel().tolist() for batch in gate.batches] == [
        [-1],
        [0, 0.5, 1, 1.5],
        [2, 2.5],
    ]


def test_nobody_waits_for_company_when_the_network_is_free() -> None:
    gate = Gate()
    gate.open()
    with batcher_of(gate, max_batch=64) as batcher:
        assert batcher.submit(crops(1)).result(timeout=30).tolist() == [[3.0]]
        assert batcher.submit(crops(2)).result(timeout=30).tolist() == [[6.0]]
    assert [len(batch) for batch in gate.batches] == [1, 1]


def test_a_crowd_takes_turns_with_single_faces() -> None:
    gate = Gate()
    with batcher_of(gate, max_batch=4) as batcher:
        occupied(batcher, gate)
        crowd = batcher.submit(crops(*range(10)))
        single = batcher.submit(crops(77))
        gate.open()
        assert crowd.result(30).ravel().tolist() == [3.0 * i for i in range(10)]
        assert single.result(30).tolist() == [[231.0]]
    assert [batch.ravel().tolist() for batch in gate.batches[1:]] == [
        [0, 1, 2, 3],
        [77, 4, 5, 6],
        [7, 8, 9],
    ]


def test_a_full_line_refuses_with_the_count_and_the_limit() -> None:
    gate = Gate()
    with batcher_of(gate, max_waiting=3) as batcher:
        occupied(batcher, gate)
        batcher.submit(crops(1, 2))
        batcher.submit(crops(3, 4, 5))
        with pytest.raises(QueueFull) as refused:
            batcher.submit(crops(6))
        assert (refused.value.value, refused.value.limit) == (5, 3)
        gate.open()


def test_who_left_is_not_run_and_makes_room() -> None:
    gate = Gate()
    with batcher_of(gate, max_waiting=2) as batcher:
        occupied(batcher, gate)
        gone = batcher.submit(crops(1, 2))
        assert gone.cancel()
        assert batcher.waiting == 0
        stays = batcher.submit(crops(3))
        gate.open()
        assert stays.result(timeout=30).tolist() == [[9.0]]
    assert [batch.ravel().tolist() for batch in gate.batches] == [[-1], [3]]


def test_who_watches_is_told_of_the_line_the_batches_and_each_caller_s_first_wait() -> None:
    gate = Gate()
    line: list[int] = []
    batches: list[tuple[int, int]] = []
    waits_s: list[float] = []

    def begins(size: int, waits: list[float]) -> None:
        batches.append((size, len(waits)))
        waits_s.extend(waits)

    batcher = Batcher(
        gate,
        max_batch=4,
        max_waiting=100,
        name="test",
        line_is=line.append,
        batch_begins=begins,
    )
    first = occupied(batcher, gate)
    crowd, gone, single = (batcher.submit(crops(*values)) for values in (range(6), [7], [8]))
    assert gone.cancel()
    gate.open()
    for caller in (first, crowd, single):
        caller.result(timeout=30)
    batcher.close()
    assert line == [1, 0, 6, 7, 8, 3, 0]
    assert batches == [(1, 1), (4, 1), (3, 1)]
    assert all(0 <= wait_s < 30 for wait_s in waits_s)


def test_a_failure_reaches_every_waiter_of_its_batch_and_nobody_else() -> None:
    def fails_on_thirteen(batch: Array) -> Array:
        if 13 in batch:
            raise RuntimeError("broken")
        return tripled(batch)

    gate = Gate(fails_on_thirteen)
    with batcher_of(gate, max_batch=4) as batcher:
        first = occupied(batcher, gate)
        together = [batcher.submit(crops(i)) for i in (11, 12, 13)]
        crowd = batcher.submit(crops(14, 15, 16))
        after = batcher.submit(crops(1))
        gate.open()
        assert first.result(timeout=30).tolist() == [[-3.0]]
        for waiter in (*together, crowd):
            with pytest.raises(RuntimeError, match="broken"):
                waiter.result(timeout=30)
        assert after.result(timeout=30).tolist() == [[3.0]]


def test_runners_share_a_crowd_and_its_rows_stay_in_order() -> None:
    """The second half of a caller's crops is answered before the first."""
    halves = {0.0: threading.Event(), 4.0: threading.Event()}
    entered = threading.Semaphore(0)

    def run(batch: Array) -> Array:
        entered.release()
        assert halves[batch[0, 0]].wait(30)
        return tripled(batch)

    with batcher_of(run, max_batch=4, runners=2) as batcher:
        crowd = batcher.submit(crops(*range(8)))
        for _ in range(2):
            assert entered.acquire(timeout=30)
        halves[4.0].set()
        halves[0.0].set()
        assert crowd.result(timeout=30).ravel().tolist() == [3.0 * i for i in range(8)]


def test_a_caller_whose_pieces_all_fail_is_told_once() -> None:
    both = threading.Barrier(2)

    def run(batch: Array) -> Array:
        both.wait(30)
        raise RuntimeError("broken")

    with batcher_of(run, max_batch=1, runners=2) as batcher:
        with pytest.raises(RuntimeError, match="broken"):
            batcher.submit(crops(1, 2)).result(timeout=30)
        with pytest.raises(RuntimeError, match="broken"):
            batcher.submit(crops(3, 4)).result(timeout=30)


def test_a_network_that_answers_too_few_rows_fails_its_waiters() -> None:
    with (
        batcher_of(lambda batch: batch[:-1]) as batcher,
        pytest.raises(RuntimeError, match="0 answers for 1 crops"),
    ):
        batcher.submit(crops(1)).result(timeout=30)


def test_stopping_answers_who_is_in_line_and_refuses_who_comes_later() -> None:
    gate = Gate()
    batcher = Batcher(gate, max_batch=2, max_waiting=100, name="test")
    first = occupied(batcher, gate)
    waiting = [batcher.submit(crops(i)) for i in range(5)]
    stopping = threading.Thread(target=batcher.close)
    stopping.start()
    gate.open()
    stopping.join(timeout=30)
    assert not stopping.is_alive()
    assert first.result(timeout=0).tolist() == [[-3.0]]
    assert [w.result(timeout=0).item() for w in waiting] == [0, 3, 6, 9, 12]
    with pytest.raises(NotReady, match="stopping"):
        batcher.submit(crops(1))


def test_no_crops_are_a_bad_argument() -> None:
    with batcher_of(tripled) as batcher, pytest.raises(ValueError, match="no crops"):
        batcher.submit(np.empty((0, 1), np.float32))


def test_a_batch_equals_its_rows_alone_through_a_real_session() -> None:
    session = open_session(recognition_graph(), threads=1, device="cpu")
    faces = np.random.default_rng(1).integers(0, 256, (7, 112, 112, 3), dtype=np.uint8)
    with batcher_of(lambda batch: session.run(batch)[0], max_batch=3) as batcher:
        merged = [batcher.submit(faces[i : i + 1]) for i in range(7)]
        together = np.concatenate([answer.result(timeout=30) for answer in merged])
    alone = np.concatenate([session.run(faces[i : i + 1])[0] for i in range(7)])
    assert np.allclose(together, alone, atol=1e-5)
