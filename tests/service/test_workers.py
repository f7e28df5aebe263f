"""service/workers.py: how the parent looks after its workers, without processes and waiting."""

import os
import socket
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from uvicorn.supervisors import multiprocess

from service import workers
from service.errors import StorageUnavailable
from service.observe.workers import Workers, read_workers, reason_left
from service.workers import LONGEST_PAUSE_S, STEADY_S, Supervisor

ANSWERS_S = 60.0
NOW = "service.workers.monotonic"


class Fake:
    """A worker process that does what the test says; pipes are real."""

    begun: "list[Fake]" = []  # noqa: RUF012

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        self.parent_conn, self.child_conn = Pipe()
        self.exitcode: int | None = None
        self.pid = 1000 + len(self.begun)
        self.process = self

    def start(self) -> None:
        self.begun.append(self)

    def is_alive(self) -> bool:
        return self.exitcode is None

    def kill(self) -> None:
        self.exitcode = -9 if self.exitcode is None else self.exitcode

    def terminate(self) -> None:
        pass

    def join(self, timeout: float | None = None) -> None:
        assert timeout is not None or self.exitcode is not None, "this would wait for ever"

    def pong(self, started: bool) -> None:
        """Answer what it was asked."""
        assert self.child_conn.poll(0)
        self.child_conn.recv()
        self.child_conn.send(started)


class Watched:
    """A supervisor of two fakes, on a clock of its own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 0.0
        self.told: list[dict[str, Any]] = []
        Fake.begun = []
        monkeypatch.setattr(multiprocess, "Process", Fake)
        monkeypatch.setattr(multiprocess, "SIGNALS", {})
        monkeypatch.setattr(NOW, lambda: self.now_s)
        monkeypatch.setattr(workers.log, "error", self._told, raising=False)
        config = uvicorn.Config("nobody:app", workers=2, log_config=None)
        self.folder = folder
        self.supervisor = Supervisor(config, [], folder=folder, answers_s=ANSWERS_S)
        self.supervisor.init_processes()

    def _told(self, event: str, **fields: Any) -> None:
        self.told.append({"event": event, **fields})

    def look(self, after_s: float = 0.5) -> Workers:
        """Have the parent look at each, some time later; what the workers read of it then."""
        self.now_s += after_s
        self.supervisor.keep_subprocess_alive()
        return read_workers(self.folder)

    def make_ready(self, *fakes: Fake) -> None:
        self.look()
        for fake in fakes:
            fake.pong(True)
        self.look()


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(tmp_path, monkeypatch)


def test_a_worker_that_is_slow_to_start_is_not_taken_for_dead(watched: Watched) -> None:
    watched.look()
    watched.look(6)
    watched.look(ANSWERS_S - 6)
    assert len(Fake.begun) == 2
    assert not watched.told


def test_a_worker_that_hangs_is_killed_and_begun_anew(watched: Watched) -> None:
    one, two = Fake.begun
    watched.make_ready(one, two)
    watched.look()
    two.pong(True)
    watched.look(ANSWERS_S + 1)
    assert (one.exitcode, two.exitcode) == (-9, None)
    watched.look(1.5)
    assert len(Fake.begun) == 3


def test_a_worker_that_dies_while_it_is_asked_is_not_waited_for(watched: Watched) -> None:
    """Meanwhile the parent would begin no other, nor hear a signal."""
    one, _ = Fake.begun
    watched.look()
    one.child_conn.close()
    watched.look()
    one.exitcode = 1
    watched.look()
    assert [line["pid"] for line in watched.told] == [one.pid]


def test_a_worker_that_cannot_start_is_tried_again_with_growing_pauses(watched: Watched) -> None:
    _, healthy = Fake.begun
    watched.make_ready(*Fake.begun)
    pauses = []
    for _ in range(8):
        failing = watched.supervisor.processes[0]
        failing.exitcode = 3
        told = len(watched.told)
        watched.look()
        pauses.append(watched.told[told]["pause_s"])
        begun = len(Fake.begun)
        if healthy.child_conn.poll(0):
            healthy.pong(True)
        watched.look(pauses[-1] - 0.1)
        assert len(Fake.begun) == begun
        watched.look(0.2)
        assert len(Fake.begun) == begun + 1
    assert pauses == [1, 2, 4, 8, 16, 32, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    assert [line["attempt"] for line in watched.told] == list(range(1, 9))
    assert {(line["event"], line["status"]) for line in watched.told} == {("worker failed", 3)}
    assert healthy.exitcode is None
    assert not watched.supervisor.should_exit.is_set()


@pytest.mark.parametrize(("steady_s", "pause_s"), [(STEADY_S, 1), (STEADY_S / 2, 2)])
def test_a_worker_that_was_ready_for_a_minute_has_started(
    watched: Watched, steady_s: float, pause_s: float
) -> None:
    watched.make_ready(*Fake.begun)
    Fake.begun[0].exitcode = -9
    watched.look()
    watched.look(1.5)
    again = Fake.begun[2]
    watched.look()
    again.pong(True)
    watched.look()
    watched.look(steady_s)
    again.exitcode = -9
    watched.look()
    assert watched.told[-1]["pause_s"] == pause_s


def test_the_others_know_of_a_worker_that_cannot_start_and_why(watched: Watched) -> None:
    one, two = Fake.begun
    watched.make_ready(one, two)
    assert read_workers(watched.folder) == Workers(wanted=2, ready=2)
    with pytest.raises(StorageUnavailable), reason_left(watched.folder, one.pid):
        raise StorageUnavailable("the disk is gone")
    one.exitcode = 3
    known = watched.look()
    assert (known.wanted, known.ready) == (2, 1)
    [sentence] = known.degraded
    assert sentence.startswith("worker 1 of 2 ended (storage-unavailable)")
    assert "the disk is gone" in watched.told[-1]["reason"]
    watched.look(1.5)
    watched.look()
    Fake.begun[2].pong(True)
    assert watched.look() == Workers(wanted=2, ready=2)


def test_a_service_of_which_no_worker_can_start_ends_with_a_status_of_its_own(
    watched: Watched,
) -> None:
    watched.look()
    for fake in Fake.begun:
        fake.exitcode = 1
    watched.look()
    assert watched.supervisor.should_exit.is_set()
    assert watched.told[-1]["event"] == "no worker can start"
    with pytest.raises(SystemExit) as ended:
        watched.supervisor.run()
    assert ended.value.code == 3


def test_workers_that_were_ready_and_all_died_are_begun_anew(watched: Watched) -> None:
    watched.make_ready(*Fake.begun)
    for fake in Fake.begun:
        fake.exitcode = -9
    watched.look()
    assert not watched.supervisor.should_exit.is_set()
    watched.look(1.5)
    assert len(Fake.begun) == 4


def test_a_process_that_the_system_refuses_is_tried_again(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.make_ready(*Fake.begun)
    Fake.begun[0].exitcode = -9
    watched.look()

    def refuse(self: Fake) -> None:
        raise OSError(11, os.strerror(11))

    with monkeypatch.context() as refusing:
        refusing.setattr(Fake, "start", refuse)
        watched.look(1.5)
    assert watched.told[-1]["event"] == "worker not begun"
    watched.look(LONGEST_PAUSE_S + 1)
    assert len(Fake.begun) == 3


def test_a_worker_that_does_not_end_in_its_time_is_killed(watched: Watched) -> None:
    watched.supervisor.terminate_all()
    watched.supervisor.join_all()
    assert [fake.exitcode for fake in Fake.begun] == [-9, -9]


def test_one_process_is_its_own_worker(tmp_path: Path) -> None:
    assert read_workers(None) == Workers(wanted=1, ready=1)
    assert read_workers(tmp_path) == Workers()  # whose parent could not write
