"""What goes wrong beneath a real server: it says what, loses nothing it acknowledged, goes on with
what can go on, and is well again when the cause has gone, without a restart."""

import json
import shutil
import signal
import socket
import sqlite3
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from service.drain import DRAINING, END_S, IN_FLIGHT_S, LINGER_S
from service.gallery import FILE_NAME, open_gallery
from tests.cartoon import cartoon_photograph
from tests.drawn import png
from tests.e2e.server import ROOT, SERVE, served
from tests.standin import NAME

# Run by every Python process that finds it. The server's own seconds are for an idle machine.
UNHURRIED = """
import functools

import service.api.bodies
import service.drain

# The body that is in flight pauses for longer than a caller's may.
service.api.bodies.Intake = functools.partial(service.api.bodies.Intake, pause_s=600)
service.drain.LINGER_S, service.drain.IN_FLIGHT_S, service.drain.END_S = 10, 600, 1200
"""
STEP_S = 0.02


@pytest.fixture(scope="module")
def photograph() -> bytes:
    return png(cartoon_photograph([(220, 120, 200)]))


def asked(
    address: str, path: str, image: bytes | None = None, method: str | None = None
) -> tuple[int, dict[str, Any]]:
    """Status and body of the answer."""
    kind = {"Content-Type": "application/octet-stream"}
    request = urllib.request.Request(f"{address}{path}", image, kind, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.load(refused)


def enrolled(address: str, person: str, image: bytes) -> tuple[int, str]:
    """Status and problem of an enrolment."""
    status, body = asked(address, f"/enroll?person_id={person}", image)
    return status, str(body.get("type", "")).rpartition("/")[2]


def match_of(address: str, image: bytes) -> str | None:
    """Whom a face is matched with."""
    status, body = asked(address, "/identify", image)
    assert status == 200, body
    [face] = body["images"][0]["faces"]
    return face["candidates"][0]["person_id"] if face["decision"] == "match" else None


def unready(address: str) -> list[str]:
    """Why the server is not ready; nothing where it is."""
    status, body = asked(address, "/readyz")
    assert status == (503 if "reasons" in body else 200)
    return list(body.get("reasons", []))


def persons_of(address: str) -> dict[str, int]:
    """The faces of each person."""
    persons: dict[str, int] = {}
    cursor: str | None = ""
    while cursor is not None:
        more = f"&cursor={cursor}" if cursor else ""
        _, body = asked(address, f"/galleries/default/persons?limit=1000{more}")
        persons |= {person["id"]: person["faces"] for person in body["items"]}
        cursor = body["next"]
    return persons


def until(done: Callable[[], Any]) -> Any:
    """What `done` gives as soon as that is something; the test's own timeout is the limit."""
    while not (given := done()):
        time.sleep(STEP_S)
    return given


# SIGTERM.


@contextmanager
def let_in(address: str, body: bytes) -> Iterator[socket.socket]:
    """A connection whose call to /detect was let in: its body is waited for."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(
            b"POST /detect HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/octet-stream\r\n"
            b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % len(body)
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        yield connection


def refused(address: str) -> bool:
    """Whether nobody listens there any more."""
    host, port = address.removeprefix("http://").split(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_answers_what_is_in_flight_and_refuses_what_comes(
    tmp_path: Path,
    networks: dict[str, object],
    photograph: bytes,
    workers: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "sitecustomize.py").write_text(UNHURRIED)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    log = tmp_path / "log"
    server = served(tmp_path / "data", log, workers=workers, **networks)
    with server as (address, process), let_in(address, photograph) as in_flight:
        in_flight.sendall(photograph[:1000])
        process.send_signal(signal.SIGTERM)
        assert until(lambda: unready(address)) == [DRAINING]
        status, problem = asked(address, "/detect", photograph)
        assert (status, problem["reasons"]) == (503, [DRAINING])
        until(lambda: refused(address))
        in_flight.sendall(photograph[1000:])
        answer = b"".join(iter(lambda: in_flight.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        assert len(json.loads(answer.partition(b"\r\n\r\n")[2])["images"][0]["faces"]) == 1
        process.wait()
    assert "Traceback" not in log.read_text(encoding="utf-8")


def test_a_client_that_dawdles_does_not_hold_the_end_up(
    tmp_path: Path, networks: dict[str, object], photograph: bytes
) -> None:
    given = {"workers": 2, "body_timeout_s": 1e6, **networks}
    with (
        served(tmp_path / "data", tmp_path / "log", **given) as (address, process),
        let_in(address, photograph) as dawdler,
    ):
        dawdler.sendall(photograph[:1000])
        process.send_signal(signal.SIGTERM)
        process.wait()  # which is over, though the body may still come for days
    assert LINGER_S + IN_FLIGHT_S < END_S < 10


# The disk.


def a_namespace(folder: Path) -> list[str]:
    """The beginning of a command that may mount, at the folder too, and sees it alone."""
    for namespace in (["unshare", "-m"], ["unshare", "-rm"]):
        may_mount = [*namespace, "mount", "-t", "tmpfs", "mien", str(folder)]
        tried = subprocess.run(may_mount, capture_output=True, text=True, check=False)
        if tried.returncode == 0:
            return namespace
    pytest.skip(f"no filesystem can be mounted here: {tried.stderr.strip()}")


def test_a_full_disk_stops_enrolments_alone_and_only_while_it_is_full(
    tmp_path: Path, networks: dict[str, object], photograph: bytes
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    small_disk = 'mount -t tmpfs -o size=8m mien "$0" && exec "$@"'
    command = [*a_namespace(disk), "sh", "-c", small_disk, str(disk), *SERVE]
    server = served(disk / "data", tmp_path / "log", command=command, **networks)
    with server as (address, process):
        ballast = Path(f"/proc/{process.pid}/root{disk}/ballast")
        told = {"ada"}
        assert enrolled(address, "ada", photograph) == (201, "")
        fill(ballast)
        assert "disk of MIEN_DATA is full" in " ".join(unready(address))  # before a write fails
        answers = {}
        for n in range(500):
            answers[f"p{n}"] = enrolled(address, f"p{n}", photograph)
            if answers[f"p{n}"][0] != 201:
                break
        assert answers.pop(f"p{n}") == (507, "storage-full")
        told |= set(answers)
        assert "disk of MIEN_DATA is full" in " ".join(unready(address))
        assert match_of(address, photograph) == "ada"
        assert persons_of(address) == dict.fromkeys(told, 1)

        ballast.unlink()
        until(lambda: not unready(address))
        assert enrolled(address, "ben", photograph) == (201, "")
        assert persons_of(address) == dict.fromkeys(told | {"ben"}, 1)


def fill(ballast: Path) -> None:
    """Leaves not a byte free; the file takes it all."""
    with ballast.open("ab", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue


@contextmanager
def immutable(*files: Path) -> Iterator[None]:
    """The files, which nobody can write to: not who has them open either, nor root."""
    command = shutil.which("chattr")
    if command is None:
        pytest.skip("chattr is not there")
    done = subprocess.run([command, "+i", *files], capture_output=True, text=True, check=False)
    try:
        if done.returncode:
            pytest.skip(f"files cannot be made immutable here: {done.stderr.strip()}")
        yield
    finally:
        subprocess.run([command, "-i", *files], capture_output=True, check=False)


def test_a_store_that_turns_read_only_stops_enrolments_alone_and_only_while_it_is_so(
    tmp_path: Path, networks: dict[str, object], photograph: bytes
) -> None:
    data = tmp_path / "data"
    with served(data, tmp_path / "log", **networks) as (address, _):
        assert enrolled(address, "ada", photograph) == (201, "")
        with immutable(data / FILE_NAME, data / f"{FILE_NAME}-wal"):
            assert enrolled(address, "ben", photograph) == (503, "storage-unavailable")
            assert "the store cannot be used now" in " ".join(unready(address))
            assert match_of(address, photograph) == "ada"
        until(lambda: not unready(address))
        assert enrolled(address, "ben", photograph) == (201, "")
        assert persons_of(address) == {"ada": 1, "ben": 1}


def test_a_read_only_volume_keeps_the_server_from_starting_with_the_reason(
    tmp_path: Path, networks: dict[str, object]
) -> None:
    data = tmp_path / "data"
    open_gallery(data).close()
    namespace = a_namespace(tmp_path / "models")
    read_only = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    command = [*namespace, "sh", "-c", read_only, str(data), *SERVE]
    starting = served(data, tmp_path / "log", command=command, **networks)
    with pytest.raises(AssertionError, match="cannot be used now: Read-only file system"), starting:
        pass


def test_a_store_that_another_process_keeps_locked_is_told_and_let_go_of(
    tmp_path: Path, networks: dict[str, object], photograph: bytes
) -> None:
    data = tmp_path / "data"
    with served(data, tmp_path / "log", **networks) as (address, _):
        assert enrolled(address, "ada", photograph) == (201, "")
        reasons: list[str] = []
        asking = threading.Thread(target=lambda: reasons.extend(unready(address)))
        with closing(sqlite3.connect(data / FILE_NAME, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            asking.start()
            assert enrolled(address, "ben", photograph) == (503, "storage-unavailable")
            assert match_of(address, photograph) == "ada"
            asking.join()
            other.execute("ROLLBACK")
        assert any(why in " ".join(reasons) for why in ("keeps it locked", "busy with other"))
        assert unready(address) == []
        assert enrolled(address, "ben", photograph) == (201, "")
        assert persons_of(address) == {"ada": 1, "ben": 1}


# Models.


def test_a_model_file_that_changes_on_disk_is_told_while_the_loaded_one_serves_on(
    tmp_path: Path, networks: dict[str, object], photograph: bytes
) -> None:
    path = tmp_path / "models" / NAME / "model.onnx"
    with served(tmp_path / "data", tmp_path / "log", **networks) as (address, _):
        assert enrolled(address, "ada", photograph) == (201, "")
        as_it_was = path.read_bytes()
        path.write_bytes(as_it_was + b" ")
        wrong = f"model.onnx of the model {NAME} was changed on disk since it was loaded"
        assert unready(address) == [wrong]
        assert match_of(address, photograph) == "ada"
        assert enrolled(address, "ben", photograph) == (201, "")
        path.unlink()
        assert "cannot be read any more" in " ".join(unready(address))
        path.write_bytes(as_it_was)
        assert unready(address) == []


def test_a_model_file_that_was_changed_keeps_the_server_from_starting_with_the_reason(
    tmp_path: Path, networks: dict[str, object]
) -> None:
    path = tmp_path / "models" / NAME / "model.onnx"
    path.write_bytes(path.read_bytes() + b" ")
    starting = served(tmp_path / "data", tmp_path / "log", **networks)
    with pytest.raises(AssertionError, match=r"model\.onnx has the sha256"), starting:
        pass
