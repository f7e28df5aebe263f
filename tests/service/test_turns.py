"""service/turns.py: turns go round callers and calls, and what is given up is let go."""

import gc
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.observe.stages import Stages, Stopped
from service.turns import CURRENT, FairLine, FairPool, Turn


@contextmanager
def pool_of(threads: int, **options: Any) -> Iterator[FairPool]:
    pool = FairPool(threads, "test", **options)
    try:
        yield pool
    finally:
        pool.shutdown()


@contextmanager
def turn_of(turn: Turn) -> Iterator[None]:
    before = CURRENT.set(turn)
    try:
        yield
    finally:
        CURRENT.reset(before)


def order_of(line: FairLine[str]) -> list[str]:
    taken = []
    while (item := line.pop()) is not None:
        taken.append(item)
    return taken


def test_turns_go_round_callers_and_round_the_calls_of_each() -> None:
    line: FairLine[str] = FairLine()
    first, second, other = Turn("ada"), Turn("ada"), Turn("bo")
    for name, turn in (("a", first), ("b", second), ("c", other)):
        for number in range(3):
            line.append(f"{name}{number}", turn)
    assert order_of(line) == ["a0", "c0", "b0", "c1", "a1", "c2", "b1", "a2", "b2"]


def test_a_call_that_comes_late_waits_for_one_turn_of_each_other_caller() -> None:
    line: FairLine[str] = FairLine()
    crowd, late = Turn("ada"), Turn("bo")
    for number in range(30):
        line.append(f"crowd {number}", crowd)
    line.pop()
    line.append("late", late)
    assert [line.pop(), line.pop()] == ["crowd 1", "late"]


def test_calls_of_nobody_take_turns_with_each_other() -> None:
    line: FairLine[str] = FairLine()
    first, second = Turn(), Turn()
    for item, turn in (("a0", first), ("a1", first), ("b0", second)):
        line.append(item, turn)
    assert order_of(line) == ["a0", "b0", "a1"]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from("abc"), st.integers(0, 2)), st.sampled_from(["pop", "drop"])
        ),
        max_size=40,
    )
)
def test_everything_comes_out_once_in_the_order_of_its_call(steps: list[Any]) -> None:
    turns = {(caller, call): Turn(caller) for caller in "abc" for call in range(3)}
    line: FairLine[tuple[Any, int]] = FairLine()
    waiting: dict[Any, list[tuple[Any, int]]] = {call: [] for call in turns}
    for number, step in enumerate(steps):
        if step == "pop":
            item = line.pop()
            assert (item is None) == (not any(waiting.values()))
            if item is not None:
                assert waiting[item[0]].pop(0) == item
        elif step == "drop":
            for call, items in waiting.items():
                if items:
                    line.remove(items.pop(), turns[call])
                    break
        else:
            waiting[step].append((step, number))
            line.append((step, number), turns[step])
    assert len(line) == len(list(line)) == sum(map(len, waiting.values()))


def test_a_pool_takes_turns_between_calls() -> None:
    entered, may_go, done = threading.Event(), threading.Event(), []

    def work(name: str) -> None:
        entered.set()
        assert may_go.wait(60)
        done.append(name)

    with pool_of(1) as pool:
        with turn_of(Turn("ada")):
            crowd = [pool.submit(work, f"crowd {number}") for number in range(4)]
        assert entered.wait(60)
        with turn_of(Turn("bo")):
            single = pool.submit(work, "single")
        may_go.set()
        for future in (*crowd, single):
            future.result(60)
    assert done == ["crowd 0", "crowd 1", "single", "crowd 2", "crowd 3"]


@pytest.mark.parametrize("callers", [("ada", "bo"), (None, None)])
def test_light_work_of_another_is_done_while_heavy_work_has_every_thread(
    callers: tuple[str | None, str | None],
) -> None:
    may_go, both_in = threading.Event(), threading.Barrier(3)

    def heavy(_: str) -> None:
        both_in.wait(60)
        assert may_go.wait(60)

    with pool_of(2, is_light=lambda kind: kind == "light") as pool:
        with turn_of(Turn(callers[0])):
            crowd = [pool.submit(heavy, "heavy") for _ in range(2)]
            both_in.wait(60)
            own = pool.submit(str, "light")
        with turn_of(Turn(callers[1])):
            assert pool.submit(str, "light").result(60) == "light"
            waits = pool.submit(str, "heavy")
        assert not own.done()  # who has another thread has not the one more
        assert not waits.done()
        may_go.set()
        assert (own.result(60), waits.result(60)) == ("light", "heavy")
        for future in crowd:
            future.result(60)


class Photograph:
    """Something that takes memory."""


def test_what_is_cancelled_is_let_go_before_its_turn_comes() -> None:
    entered, may_go = threading.Event(), threading.Event()

    def block() -> None:
        entered.set()
        assert may_go.wait(60)

    with pool_of(1) as pool:
        first = pool.submit(block)
        assert entered.wait(60)
        photograph = Photograph()
        held = weakref.ref(photograph)
        waiting = pool.submit(lambda seen: None, photograph)
        del photograph
        assert waiting.cancel()
        del waiting
        gc.collect()
        assert held() is None
        may_go.set()
        first.result(60)


def test_what_was_done_is_let_go_while_the_thread_waits_for_more() -> None:
    with pool_of(1) as pool:
        photograph = Photograph()
        held = weakref.ref(photograph)
        gc.collect()
        gc.disable()
        try:
            pool.submit(lambda seen: None, photograph).result(60)
            pool.submit(lambda: None).result(60)  # so that the first is behind its thread
            del photograph
            assert held() is None
        finally:
            gc.enable()


def test_a_failure_does_not_keep_what_the_work_was_given() -> None:
    def fail(seen: Photograph) -> None:
        raise KeyError(seen)

    with pool_of(1) as pool:
        photograph = Photograph()
        held = weakref.ref(photograph)
        gc.collect()
        gc.disable()  # it would find the cycle, at some time
        try:
            failed = pool.submit(fail, photograph)
            assert isinstance(failed.exception(60), KeyError)
            pool.submit(lambda: None).result(60)
            del photograph, failed
            assert held() is None
        finally:
            gc.enable()


def test_a_failure_reaches_who_waits_and_the_thread_goes_on() -> None:
    def fail() -> None:
        raise KeyError("this one")

    with pool_of(1) as pool:
        with pytest.raises(KeyError, match="this one"):
            pool.submit(fail).result(60)
        assert pool.submit(int, "7").result(60) == 7


def test_a_call_that_is_over_begins_nothing_more_and_is_left_when_its_work_has_ended() -> None:
    entered, may_go, left = threading.Event(), threading.Event(), threading.Event()

    def block() -> None:
        entered.set()
        assert may_go.wait(60)

    turn = Turn("ada")
    with pool_of(1) as pool:
        with turn_of(turn):
            running = pool.submit(block)
            assert entered.wait(60)
            waiting = pool.submit(pytest.fail, "the call is over")
        turn.close(left.set)
        assert not left.is_set()
        may_go.set()
        running.result(60)
        assert left.wait(60)
        assert pool.submit(int, "7").result(60) == 7
        assert waiting.cancelled()


def test_a_pool_that_is_shut_down_does_or_cancels_what_is_in_line() -> None:
    pool = FairPool(1, "test")
    left = [pool.submit(int, str(number)) for number in range(5)]
    pool.shutdown()
    assert [future.result(60) for future in left] == list(range(5))
    with pytest.raises(RuntimeError):
        pool.submit(int, "7")
    entered, may_go = threading.Event(), threading.Event()
    pool = FairPool(1, "test")
    running = pool.submit(lambda: entered.set() or may_go.wait(60))
    assert entered.wait(60)
    waiting = pool.submit(int, "7")
    pool.shutdown(wait=False, cancel_futures=True)
    assert waiting.cancelled()
    may_go.set()
    pool.shutdown()
    assert running.result(60)


def test_a_call_that_is_stopped_begins_no_further_stage() -> None:
    stages = Stages()
    with stages.measure("decode"):
        assert stages.stop()
    with pytest.raises(Stopped), stages.measure("detect"):
        pytest.fail("it began")
    assert list(stages.seconds()) == ["decode"]


def test_a_call_whose_faces_are_being_stored_is_not_stopped() -> None:
    stages = Stages()
    with stages.measure("store"):
        assert not stages.stop()
    with stages.measure("decide"):
        pass
