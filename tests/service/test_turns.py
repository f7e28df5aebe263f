"""service/gallery/turns.py: one at a time, and who waits goes before who comes again."""

import fcntl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.errors import StorageUnavailable
from service.gallery.turns import Turns


@pytest.fixture
def turns(tmp_path: Path) -> Iterator[Turns]:
    opened = Turns(tmp_path / "file", patience_s=60)
    yield opened
    opened.close()


def is_locked(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def until(true: Callable[[], bool]) -> None:
    """Returns when it is true; the test's timeout is the limit."""
    while not true():
        threading.Event().wait(0.001)


def test_threads_are_served_in_the_order_of_their_coming(turns: Turns) -> None:
    served: list[int] = []

    def wait_for_a_turn(n: int) -> None:
        with turns.mine():
            served.append(n)

    threads = [threading.Thread(target=wait_for_a_turn, args=(n,)) for n in range(6)]
    with turns.mine():
        for n, thread in enumerate(threads, start=1):
            thread.start()
            until(lambda n=n: len(turns._line._waiting) == n)
    for thread in threads:
        thread.join()
    assert served == list(range(6))


def test_who_just_had_a_turn_does_not_jump_in_before_another_process(
    turns: Turns, tmp_path: Path
) -> None:
    other, served = Turns(tmp_path / "file", patience_s=60), []

    def wait_for_a_turn() -> None:
        with other.mine():
            served.append("other")

    for _ in range(10):
        waiting = threading.Thread(target=wait_for_a_turn)
        with turns.mine():
            waiting.start()
            until(lambda: is_locked(tmp_path / "file-next"))
        with turns.mine():
            served.append("again")
        waiting.join()
    assert served == ["other", "again"] * 10
    other.close()


def test_two_never_have_a_turn_at_once(tmp_path: Path) -> None:
    inside, most = 0, 0

    def count_who_is_inside(turns: Turns) -> None:
        nonlocal inside, most
        for _ in range(50):
            with turns.mine():
                inside += 1
                most = max(most, inside)
                threading.Event().wait(0.0001)  # lets the others try
                inside -= 1

    processes = [Turns(tmp_path / "file", patience_s=60) for _ in range(3)]
    threads = [
        threading.Thread(target=count_who_is_inside, args=(turns,)) for turns in processes * 2
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    for turns in processes:
        turns.close()


def test_a_turn_that_does_not_come_is_given_up_and_hinders_no_one(tmp_path: Path) -> None:
    turns, hasty = (Turns(tmp_path / "file", patience_s=patience) for patience in (60, 0.01))
    with turns.mine(), pytest.raises(StorageUnavailable, match="another process"), hasty.mine():
        pass
    with hasty.mine():
        told: list[str] = []

        def ask() -> None:
            try:
                with hasty.mine():
                    pass
            except StorageUnavailable as error:
                told.append(error.reason)

        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
        assert told == ["it is busy with other writes"]
    for each in (turns, hasty):
        with each.mine():
            pass
        each.close()


DYING = """
import os, sys
from pathlib import Path
from service.gallery.turns import Turns

with Turns(Path(sys.argv[1]), patience_s=1).mine():
    os.kill(os.getpid(), 9)
"""


def test_the_turn_of_a_killed_process_is_given_back(turns: Turns, tmp_path: Path) -> None:
    died = subprocess.run(
        [sys.executable, "-c", DYING, str(tmp_path / "file")],
        cwd=Path(__file__).resolve().parents[2],
    )
    assert died.returncode == -9
    with turns.mine():
        assert is_locked(tmp_path / "file-turn")
        assert not is_locked(tmp_path / "file-next")


def test_what_raises_gives_its_turn_back(turns: Turns, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), turns.mine():
        raise ZeroDivisionError
    assert not is_locked(tmp_path / "file-turn")


def test_nobody_has_a_turn_once_it_is_closed(tmp_path: Path) -> None:
    turns = Turns(tmp_path / "file", patience_s=60)
    turns.close()
    turns.close()
    with pytest.raises(StorageUnavailable, match="closed"), turns.mine():
        pass
