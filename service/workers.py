"""The worker processes: begun, asked how they are, begun again, ended.

What differs from uvicorn's own parent: a worker that cannot start does not end those that can. It
is begun again after a pause that grows, and the others say so in /readyz. The parent waits for no
answer, so that one worker that hangs keeps it from nothing.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from socket import socket
from time import monotonic
from typing import Final

import uvicorn
from uvicorn.supervisors import Multiprocess, multiprocess

from service.drain import END_S
from service.observe.logs import log
from service.observe.workers import Workers, take_reason, write_workers

FAULT: Final = 3  # the exit status of a service of which no worker can start
LONGEST_PAUSE_S: Final = 60.0
# A worker that was ready for so long has started; what ends it then is a first failure.
STEADY_S: Final = 60.0


@dataclass
class _Slot:
    """A place for one worker process after another. failures: in a row; the pause follows them.

    asked_s, ready_s, begin_s: on the monotonic clock, when it was asked a question that it has not
    answered yet, since when it is ready, when the next is begun; None: no question, not ready, not
    to be begun. degraded: why there is no worker here, for /readyz.
    """

    process: multiprocess.Process
    failures: int = 0
    asked_s: float | None = None
    ready_s: float | None = None
    begin_s: float | None = None
    degraded: str | None = None


class Supervisor(Multiprocess):
    """Keeps the worker processes of one port. folder: where they and it leave what they say.

    answers_s: a process that does not answer for so long is killed and begun anew.
    """

    def __init__(
        self, config: uvicorn.Config, sockets: list[socket], *, folder: Path, answers_s: float
    ) -> None:
        super().__init__(config, sockets)
        self._folder = folder
        self._answers_s = answers_s
        self._slots: list[_Slot] = []
        self._written: Workers | None = None
        self._fault = False

    def run(self) -> None:
        """Run until told to stop. Raises SystemExit if no worker can start."""
        try:
            super().run()
        except BaseException:  # else the interpreter would wait for them, unsupervised, for ever
            self.terminate_all()
            self.join_all()
            raise
        if self._fault:
            raise SystemExit(FAULT)

    def keep_subprocess_alive(self) -> None:
        """Look at each worker once: note that it is ready, that it ended, or begin the next."""
        if self.should_exit.is_set():
            return
        now_s = monotonic()
        for at, process in enumerate(self.processes):
            slot = self._slot(at, process)
            if slot.begin_s is None:
                self._look_at(slot, now_s)
            elif now_s >= slot.begin_s:
                self._begin(at, slot)
        del self._slots[len(self.processes) :]
        self._write()
        if self._all_failed():
            log.error("no worker can start", reasons=[slot.degraded for slot in self._slots])
            self._fault = True
            self.should_exit.set()

    def terminate_all(self) -> None:
        """Tell the workers to end, and let go of the port.

        Else who comes after they have closed it would be kept waiting for nobody.
        """
        super().terminate_all()
        for port in self.sockets:
            port.close()

    def join_all(self) -> None:
        """Wait until the workers have ended, and kill those that do not in their time."""
        give_up_s = monotonic() + END_S + 1
        for process in self.processes:
            process.process.join(max(0.0, give_up_s - monotonic()))
            if process.exitcode is None:
                log.error("worker killed", pid=process.pid, reason=f"did not end in {END_S} s")
                process.kill()
                process.process.join()

    def _slot(self, at: int, process: multiprocess.Process) -> _Slot:
        """The slot of that place, of a process that uvicorn may have put there."""
        if at == len(self._slots):
            self._slots.append(_Slot(process))
        slot = self._slots[at]
        if slot.process is not process:
            self._slots[at] = slot = _Slot(process)
        return slot

    def _look_at(self, slot: _Slot, now_s: float) -> None:
        process = slot.process
        if process.process.is_alive():
            self._ask(slot, now_s)
            if slot.asked_s is None or now_s - slot.asked_s <= self._answers_s:
                return
            process.kill()
            process.process.join()
        self._failed(slot, now_s)

    def _ask(self, slot: _Slot, now_s: float) -> None:
        """Ask the worker if it is ready, or hear its answer if it has come; wait for none."""
        pipe = slot.process.parent_conn
        with suppress(OSError, EOFError):  # it is ending: the next look finds it dead
            if slot.asked_s is None:
                slot.asked_s = now_s
                pipe.send(b"ping")
            elif pipe.poll(0):
                started = pipe.recv()
                slot.asked_s = None
                if started and slot.ready_s is None:
                    slot.ready_s, slot.degraded = now_s, None
        if slot.ready_s is not None and now_s - slot.ready_s >= STEADY_S:
            slot.failures = 0

    def _failed(self, slot: _Slot, now_s: float) -> None:
        """Note that the worker ended, and when the next is begun."""
        pid, status = slot.process.pid, slot.process.exitcode
        left = None if pid is None else take_reason(self._folder, pid)
        slug, reason = left or (f"status {status}", "the lines before this one may have it")
        pause_s = min(LONGEST_PAUSE_S, 2.0 ** min(slot.failures, 10))
        slot.failures += 1
        slot.begin_s = now_s + pause_s
        place = self.processes.index(slot.process) + 1
        ended = f"worker {place} of {len(self.processes)} ended ({slug}) and is begun again"
        slot.degraded = f"{ended}; the log says why"
        told = {"pid": pid, "status": status, "attempt": slot.failures, "pause_s": pause_s}
        log.error("worker failed", **told, reason=reason)

    def _begin(self, at: int, slot: _Slot) -> None:
        process = multiprocess.Process(self.config, self.sockets)
        slot.asked_s = slot.ready_s = slot.begin_s = None
        try:
            process.start()
        except OSError as error:  # no process, memory or descriptor to be had
            slot.begin_s = monotonic() + LONGEST_PAUSE_S
            log.error("worker not begun", reason=error.strerror, pause_s=LONGEST_PAUSE_S)
            return
        slot.process = self.processes[at] = process

    def _all_failed(self) -> bool:
        """True if no worker is left, and none was ready before it ended."""
        return bool(self._slots) and all(
            slot.begin_s is not None and slot.ready_s is None and slot.failures > 0
            for slot in self._slots
        )

    def _write(self) -> None:
        ready = sum(slot.ready_s is not None and slot.begin_s is None for slot in self._slots)
        degraded = tuple(slot.degraded for slot in self._slots if slot.degraded is not None)
        workers = Workers(len(self._slots), ready, degraded)
        if workers != self._written:
            with suppress(OSError):  # a full disk: it is tried again with the next look
                write_workers(self._folder, workers)
                self._written = workers
