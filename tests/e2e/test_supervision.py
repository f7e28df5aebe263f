"""Worker processes that cannot start, hang or lose their parent; a service that ends of a fault."""

import json
import os
import signal
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.server import ROOT, SERVE, served
from tests.e2e.test_faults import asked, refused, until
from tests.standin import NAME

# Run by every Python process that finds it: the store cannot be opened while the file is there.
UNOPENED = """
import pathlib
import service.gallery
from service.errors import ArtefactError

_open = service.gallery.open_gallery

def open_gallery(*given, **named):
    if pathlib.Path({marker!r}).exists():
        raise ArtefactError("the store", "the test keeps it")
    return _open(*given, **named)

service.gallery.open_gallery = open_gallery
"""


def children_of(pid: int) -> list[int]:
    """The worker processes of a parent: those that listen for its questions."""
    children = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    commands = {one: Path(f"/proc/{one}/cmdline").read_bytes() for one in children}
    return [one for one, command in commands.items() if b"spawn_main" in command]


def lines_of(log: Path, event: str) -> list[dict[str, Any]]:
    lines = [one for one in log.read_text(encoding="utf-8").splitlines() if one.startswith("{")]
    return [line for line in map(json.loads, lines) if line["event"] == event]


def test_a_worker_that_cannot_start_ends_no_other_and_is_tried_until_it_can(
    tmp_path: Path, networks: dict[str, object]
) -> None:
    log, model = tmp_path / "log", tmp_path / "models" / NAME / "model.onnx"
    with served(tmp_path / "data", log, workers=2, **networks) as (address, process):
        first, second = until(lambda: two(children_of(process.pid)))
        graph = model.read_bytes()
        model.write_bytes(graph + b" ")
        os.kill(first, signal.SIGKILL)
        until(lambda: len(lines_of(log, "worker failed")) >= 3)
        assert second in children_of(process.pid)
        assert asked(address, "/healthz")[0] == 200
        killed, *failed = lines_of(log, "worker failed")
        assert (killed["pid"], killed["status"]) == (first, -signal.SIGKILL)
        assert all("stand-in" in line["reason"] for line in failed)
        pauses = [line["pause_s"] for line in (killed, *failed)]
        assert pauses == sorted(pauses)
        assert pauses[0] < pauses[-1]
        model.write_bytes(graph)
        until(lambda: two(children_of(process.pid)) and asked(address, "/readyz")[0] == 200)
        until(lambda: workers_ready(address) == 2)


def workers_ready(address: str) -> float:
    with urllib.request.urlopen(f"{address}/metrics", timeout=600) as answer:
        text = answer.read().decode()
    [line] = [one for one in text.splitlines() if one.startswith("mien_workers_ready ")]
    return float(line.split()[1])


def two(pids: list[int]) -> list[int] | None:
    return pids if len(pids) == 2 else None


def test_the_others_stay_ready_and_say_which_worker_cannot_start_and_why(
    tmp_path: Path, networks: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "marker"
    (tmp_path / "sitecustomize.py").write_text(UNOPENED.format(marker=str(marker)))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    log = tmp_path / "log"
    with served(tmp_path / "data", log, workers=2, **networks) as (address, process):
        first, _ = until(lambda: two(children_of(process.pid)))
        marker.touch()
        os.kill(first, signal.SIGKILL)

        def degraded() -> str | None:
            try:
                status, body = asked(address, "/readyz")
            except ConnectionError:  # the killed worker had taken this very connection
                return None
            assert status == 200
            return " ".join(body.get("degraded", []))

        assert "ended (status -9)" in until(degraded)
        until(lambda: "artefact-refused" in (degraded() or ""))
        assert workers_ready(address) == 1
        marker.unlink()
        until(lambda: degraded() == "")


def test_a_service_of_which_no_worker_can_start_exits_with_status_3(
    tmp_path: Path, networks: dict[str, object]
) -> None:
    log, model = tmp_path / "log", tmp_path / "models" / NAME / "model.onnx"
    with served(tmp_path / "data", log, workers=2, **networks) as (_, process):
        pids = until(lambda: two(children_of(process.pid)))
        model.unlink()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        assert process.wait() == 3
    assert lines_of(log, "no worker can start")


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_service_that_is_told_to_end_exits_with_0(
    tmp_path: Path, networks: dict[str, object], stop: signal.Signals
) -> None:
    with served(tmp_path / "data", tmp_path / "log", workers=2, **networks) as (_, process):
        process.send_signal(stop)
        assert process.wait() == 0


def test_a_worker_that_hangs_does_not_hold_the_end_up(
    tmp_path: Path, networks: dict[str, object]
) -> None:
    with served(tmp_path / "data", tmp_path / "log", workers=2, **networks) as (_, process):
        first, _ = until(lambda: two(children_of(process.pid)))
        os.kill(first, signal.SIGSTOP)
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
        assert not Path(f"/proc/{first}").exists()


def test_workers_end_when_their_parent_dies(tmp_path: Path, networks: dict[str, object]) -> None:
    with served(tmp_path / "data", tmp_path / "log", workers=2, **networks) as (address, process):
        pids = until(lambda: two(children_of(process.pid)))
        process.kill()
        process.wait()
        until(lambda: refused(address))
        until(lambda: not any(alive(pid) for pid in pids))


def alive(pid: int) -> bool:
    """True if the process runs; one that ended may stay for a parent that does not ask."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_fewer_open_files_than_connections_stop_the_start_with_both(
    tmp_path: Path, networks: dict[str, object]
) -> None:
    command = ["sh", "-c", 'ulimit -n 512 && exec "$@"', "sh", *SERVE]
    starting = served(
        tmp_path / "data", tmp_path / "log", command=command, max_connections=1000, **networks
    )
    message = "MIEN_MAX_CONNECTIONS.*1000 connections.*512 open files"
    with pytest.raises(AssertionError, match=message), starting:
        pass
